"""What is not to be kept any longer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from tracesvc.store.base import LiveSessionError, UnknownSessionError
from tracesvc.store.catalogue import Catalogue

__all__ = ["Keep", "superfluous", "tidied"]


@dataclass(frozen=True, slots=True)
class Keep:
    """How much a store keeps; None: without bound.  Only sessions that are over are ever deleted, the oldest first."""

    age: float | None = None
    """seconds after its last frame that a session is kept"""
    source_bytes: int | None = None
    """of all sessions of one source together"""

    free: int = 0
    """bytes of the disk that are to stay free: below that nothing is taken"""

    @property
    def limited(self) -> bool:
        return self.age is not None or self.source_bytes is not None


async def tidied(names: Iterable[str], delete: Callable[[str], Awaitable[None]]) -> list[str]:
    """Delete them; those that went."""
    gone = []
    for name in names:
        try:
            await delete(name)
        except (LiveSessionError, UnknownSessionError):
            continue  # it goes on after all, or somebody was faster
        gone.append(name)
    return gone


def superfluous(catalogue: Catalogue, keep: Keep, now: int) -> list[str]:
    """The sessions to delete; for a thread.  ``now``: ns since the epoch."""
    found: list[str] = []
    held: defaultdict[str, int] = defaultdict(int)
    for session, source, updated, size, over in catalogue.sizes_by_source(now):
        # the youngest first, so that what is over the bound is what is oldest
        held[source] += size
        old = keep.age is not None and updated < now - keep.age * 1e9
        much = keep.source_bytes is not None and held[source] > keep.source_bytes
        if over and (old or much):
            found.append(session)
    return found
