"""Garbage collections as events.

The callback runs wherever an allocation started a collection: inside a hook, an annotation, the reader.  It therefore
does no more than store a record; it makes no proc and seals nothing.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final

from tracesvc.events import GcEnd, GcStart
from tracesvc.recorder.clock import now
from tracesvc.recorder.session import local

if TYPE_CHECKING:
    from tracesvc.recorder.session import Session

__all__ = ["GarbageEvents"]


class GarbageEvents:
    """Installed in ``gc.callbacks`` from `open` to `close`."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    def open(self) -> None:
        gc.callbacks.append(self._collected)

    def close(self) -> None:
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        session = self._session
        if not session.open:
            return
        proc = local.proc
        if proc is None or proc.session is not session or not proc.live:
            proc = session.process
        if phase == "start":
            proc.extend((GcStart.number, now(), info["generation"], 0, 0))
        else:
            proc.extend((GcEnd.number, now(), info["generation"], info["collected"], 0))
