"""The triggers of one flight recorder: what they are shown, and the snapshots that they ask for."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tracesvc.events import FrameKind
from tracesvc.format import Batch, Frame, Snapshot, Strings
from tracesvc.recorder.annotations import log
from tracesvc.recorder.clock import now, wall
from tracesvc.recorder.pacer import real_deadline
from tracesvc.recorder.tree import GONE
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.triggers import ProgramDies, Trigger

__all__ = ["Shots"]

logger: Final = logging.getLogger("tracesvc")


@dataclass(frozen=True, slots=True)
class _Due:
    """A snapshot that is to be taken."""

    trigger: Trigger
    path: Path
    options: dict[str, Any]
    """for its header"""


Take = Callable[[Path, dict[str, Any]], Awaitable[object]]


class Shots:
    """Of one session, in the recorder's run."""

    def __init__(
        self,
        triggers: Sequence[Trigger],
        directory: Path,
        write_now: Callable[[Path, dict[str, Any]], None],
    ) -> None:
        """``write_now`` takes a snapshot when the session is over, without a run."""
        self._triggers: Final = triggers
        self._directory: Final = directory
        self._wanted: Final = frozenset().union(*(trigger.types for trigger in triggers))
        self._strings: dict[int, str] = {0: ""}
        self._tasks: int | None = None
        """tasks in the snapshots of a generation that begins"""
        self._told: Final[deque[tuple[Trigger, str]]] = deque()
        self._due: Final[deque[_Due]] = deque()
        self._wake = trio.Event()
        self._token: Final = trio.lowlevel.current_trio_token()
        self._over: Final = trio.Event()
        self._ended = 0
        self._write_now: Final = write_now
        self._lock: Final = threading.Lock()
        self._count = 0
        for trigger in triggers:
            try:
                trigger.open(partial(self._tell, trigger))
            except Exception as exc:
                logger.error("tracesvc: the trigger %s never fires: %s", trigger.name, exc)
            if isinstance(trigger, ProgramDies):
                trigger.write = self._program_dies

    # --- what happens ----------------------------------------------------------------------------

    def frame(self, frame: Frame) -> None:
        """The next frame of the stream; never raises."""
        try:
            self._frame(frame)
        except Exception:
            logger.exception("tracesvc: the triggers cannot read a frame; they go on")

    def _frame(self, frame: Frame) -> None:
        match frame.kind:
            case FrameKind.EVENTS if self._wanted:
                if self._tasks is not None:
                    for trigger in self._triggers:
                        trigger.count(self._tasks)
                    self._tasks = None
                self._batch(Batch(frame.body()), frame.newest)
            case FrameKind.STRINGS:
                self._strings.update(Strings.unpack(frame.body()).rows)
            case FrameKind.GENERATION:
                self._strings, self._tasks = {0: ""}, None
            case FrameKind.SNAPSHOT:
                snapshot = Snapshot.unpack(frame.body())
                if snapshot.proc:
                    self._tasks = (self._tasks or 0) + len(snapshot.tasks)

    def _batch(self, batch: Batch, newest: int) -> None:
        there = self._wanted.intersection([row[0] for row in batch.rows])
        if not there:
            return
        for trigger in self._triggers:
            if not trigger.types.isdisjoint(there) and trigger.worth_it(batch, newest):
                reason = trigger.look(batch, self._text)
                if reason is not None:
                    self._fire(trigger, reason)

    def _text(self, number: int) -> str:
        return self._strings.get(number, f"?{number}")

    def _tell(self, trigger: Trigger, reason: str) -> None:
        """From any thread, or a signal handler."""
        self._told.append((trigger, reason))
        with contextlib.suppress(*GONE):
            self._token.run_sync_soon(self._take_told, idempotent=True)

    def _take_told(self) -> None:
        while self._told:
            self._fire(*self._told.popleft())

    def _fire(self, trigger: Trigger, reason: str) -> None:
        if not trigger.allows(now()):
            return
        log(f"trigger {trigger.name}: {reason}", level="warning", trigger=trigger.name)
        self._due.append(self._make(trigger, reason))
        self._wake.set()

    def _make(self, trigger: Trigger, reason: str) -> _Due:
        with self._lock:
            self._count += 1
            count = self._count
        time = datetime.fromtimestamp(wall() / 1e9, UTC)
        name = f"{time:%Y%m%dT%H%M%SZ}-{os.getpid()}-{count}-{trigger.name}.trace"
        options = {"trigger": trigger.name, "why": reason, "fired": now()}
        return _Due(trigger, self._directory / name, options)

    # --- snapshots -------------------------------------------------------------------------------

    async def run(self, take: Take) -> None:
        """Take the snapshots that are asked for, until `finish`."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._due:
                    nursery.start_soon(self._shoot, self._due.popleft(), take)
                if self._over.is_set():
                    return
                await self._wake.wait()
                self._wake = trio.Event()

    async def _shoot(self, due: _Due, take: Take) -> None:
        with trio.CancelScope() as scope, real_deadline(scope, due.trigger.after):
            await self._over.wait()
        try:
            await take(due.path, due.options)
        except SinkError as exc:
            logger.error("tracesvc: the snapshot of %s failed: %s", due.trigger.name, exc)

    def finish(self) -> None:
        """The session is over: what is due is taken now."""
        self._take_told()
        self._ended = now()
        self._over.set()
        self._wake.set()

    def close(self) -> None:
        """No trigger fires any more, but one whose program dies of what ended the session."""
        for trigger in self._triggers:
            trigger.close()

    def _program_dies(self, trigger: Trigger, reason: str) -> None:
        late = self._ended and now() - self._ended > ProgramDies.LATE
        if not late and trigger.allows(now()):
            due = self._make(trigger, reason)
            self._write_now(due.path, due.options)
            logger.error("tracesvc: snapshot of what came before the end: %s", due.path)
