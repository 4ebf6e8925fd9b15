"""Garbage collections as events.

The callback runs wherever an allocation started a collection: inside a hook, an annotation, the reader.  It therefore
does no more than store a record; it makes no proc and seals nothing.  `GarbageEvents._collected` is the twin in Python
of what ``csrc/garbage.c`` does where recording is native.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.events import GcEnd, GcStart
from tracesvc.recorder.clock import now
from tracesvc.recorder.native import native
from tracesvc.recorder.session import local

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc
    from tracesvc.recorder.session import Session

__all__ = ["GarbageEvents"]


class GarbageEvents:
    """Installed in ``gc.callbacks`` from `open` to `close`."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session
        self._proc: Proc | None = None
        """the one that has the start of the collection that is under way"""
        self._callback: Final[Callable[[str, dict[str, Any]], None]] = (
            native.collected
            if native is not None and isinstance(session.process.records, native.Records)
            else self._collected
        )

    def open(self) -> None:
        if native is not None:
            native.collections_of(self._session, self._session.process)
        gc.callbacks.append(self._callback)

    def close(self) -> None:
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)
        if native is not None:
            native.collections_of(None, None)

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C that came up here would be swallowed
    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        session = self._session
        if not session.open:
            return
        if phase == "start":
            proc = local.proc
            if proc is None or proc.session is not session or not proc.live or not proc.emitted:
                proc = session.process  # also while the thread's own is about to say that it starts
            self._proc = proc
            proc.extend((GcStart.number, now(), info["generation"], 0, 0))
        elif (
            proc := self._proc
        ) is not None and proc.live:  # a finalizer may have given the thread another one
            self._proc = None
            proc.extend((GcEnd.number, now(), info["generation"], info["collected"], 0))
