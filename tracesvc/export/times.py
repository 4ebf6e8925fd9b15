"""How long tasks of each name and entry were in which state: the sums that profiles are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import Frames, Reason
from tracesvc.export.replay import Chunk
from tracesvc.export.wait_stacks import WaitStacks
from tracesvc.model.states import State

__all__ = ["Times"]

_STATES = 8
_REASONS = 16


class Times:
    """Adds up states, chunk by chunk; memory goes with the names."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str, int, int], list[int]] = {}
        """(name, entry, state, reason) -> [how often, ns]"""
        self.waits: dict[tuple[str, str, int, Frames], list[int]] = {}
        """(name, entry, reason, stack) -> the same, of waits whose stack is known; they are not in ``sums``"""
        self._stacks = WaitStacks()

    def add(self, chunk: Chunk) -> None:
        """The states that end in a chunk."""
        moves, strings = chunk.moves, chunk.columns.strings
        stacks = self._stacks.of(chunk)[1]
        known = (stacks > 0) & (moves.before == State.WAITING)
        if known.any():
            self._add_waits(chunk, np.flatnonzero(known), stacks)
        ended = np.flatnonzero((moves.before != State.ABSENT) & ~known)
        if not len(ended):
            return
        state = np.where(moves.before == State.NEW, int(State.RUNNABLE), moves.before)[ended]
        reasons = np.clip(moves.reason[ended], 0, len(Reason) - 1)
        reason = np.where(state == State.WAITING, reasons, 0)
        pair = moves.name[ended] * (1 << 30) + moves.entry[ended]
        key = pair * (_STATES * _REASONS) + state * _REASONS + reason
        spent = np.maximum(moves.time - moves.since, 0)[ended]
        keys, places = np.unique(key, return_inverse=True)
        sums, counts = np.zeros(len(keys), np.int64), np.bincount(places, minlength=len(keys))
        np.add.at(sums, places, spent)
        for one, count, ns in zip(keys.tolist(), counts.tolist(), sums.tolist(), strict=True):
            rest, low = divmod(one, _STATES * _REASONS)
            name, entry = divmod(rest, 1 << 30)
            whole = self.sums.setdefault(
                (strings[name], strings[entry], *divmod(low, _REASONS)), [0, 0]
            )
            whole[0] += count
            whole[1] += ns

    def _add_waits(self, chunk: Chunk, at: NDArray[np.int64], stacks: NDArray[np.int64]) -> None:
        moves, columns = chunk.moves, chunk.columns
        reasons = np.clip(moves.reason[at], 0, len(Reason) - 1)
        spent = np.maximum(moves.time - moves.since, 0)[at]
        for name, entry, reason, stack, ns in zip(
            moves.name[at].tolist(),
            moves.entry[at].tolist(),
            reasons.tolist(),
            stacks[at].tolist(),
            spent.tolist(),
            strict=True,
        ):
            key = columns.strings[name], columns.strings[entry], reason, columns.stacks[stack]
            whole = self.waits.setdefault(key, [0, 0])
            whole[0] += 1
            whole[1] += ns
