"""What a tracer can be told, and how it takes its way into trio."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Final, Literal, TypedDict

from tracesvc.recorder import direct
from tracesvc.recorder.hooks import PublicRunHooks, RunHooks
from tracesvc.recorder.native import native
from tracesvc.recorder.records import AnyRecords, Records
from tracesvc.recorder.source import program_name
from tracesvc.recorder.texts import cut_name

__all__ = ["OptionKeywords", "Options", "Way"]

logger: Final = logging.getLogger("tracesvc")


class OptionKeywords(TypedDict, total=False):
    """The same, as keywords of a call."""

    name: str | None
    buffer_events: int
    queue_buffers: int
    stacks: Literal["slow", "all", "off"]
    slow_block_s: float
    stall_s: float
    way: Literal["direct", "public"] | None
    native: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a tracer can be told, as keywords of `tracesvc.open_tracer` and `tracesvc.Tracer`.

    Attributes:
      name: what the program is called in the trace; by default the name of its script.
      buffer_events: events in a full buffer, 16 to 65,536.
      queue_buffers: full buffers that may wait for the reader; what comes when there is no room is dropped and counted.
      stacks: of which waits it is recorded where the task was suspended: ``"slow"``, those that last ``slow_block_s``
        or more; ``"all"``; ``"off"``.
      slow_block_s: seconds.
      stall_s: seconds that a step may run before it is recorded what was running; 0: for ever.
      way: into trio, ``"direct"`` or ``"public"``; by default direct where it is known to be safe.
      native: whether the native recorder is used; by default where it was built.

    The environment variables ``TRACESVC_WAY`` (direct, public) and ``TRACESVC_NATIVE`` (0) change the defaults of the
    last two; they are for who wants to compare.

    Raises:
      ValueError: one is out of its range.
    """

    name: str | None = None
    buffer_events: int = 1024
    queue_buffers: int = 256
    stacks: Literal["slow", "all", "off"] = "slow"
    slow_block_s: float = 0.001
    stall_s: float = 0.1
    way: Literal["direct", "public"] | None = None
    native: bool | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.buffer_events <= 1 << 16:
            raise ValueError(
                f"buffer_events must be between 16 and 65536, not {self.buffer_events}"
            )
        if not 2 <= self.queue_buffers <= 1 << 16:
            raise ValueError(f"queue_buffers must be between 2 and 65536, not {self.queue_buffers}")
        if self.stacks not in ("slow", "all", "off"):
            raise ValueError(f"stacks must be 'slow', 'all' or 'off', not {self.stacks!r}")
        if not 0 <= self.slow_block_s < 1e9:
            raise ValueError(f"slow_block_s must be seconds, 0 or more, not {self.slow_block_s}")
        if not (self.stall_s == 0 or 0.001 <= self.stall_s < 1e9):
            raise ValueError(f"stall_s must be seconds, 0.001 or more, or 0, not {self.stall_s}")
        if self.way not in (None, "direct", "public"):
            raise ValueError(f"way must be 'direct' or 'public', not {self.way!r}")

    @property
    def source_name(self) -> str:
        """What the trace calls the program."""
        return cut_name(self.name or program_name())

    @property
    def slow(self) -> int:
        """ns that a wait lasts whose stack is recorded; negative: none."""
        return {"slow": int(self.slow_block_s * 1e9), "all": 0, "off": -1}[self.stacks]


@dataclass(frozen=True, slots=True)
class Way:
    """How one session enters trio, and who records."""

    hooks: type[RunHooks]
    native: bool
    """whether the native recorder records"""
    obstacle: str
    """why not the direct way, though it was to be taken"""

    @property
    def direct(self) -> bool:
        return self.hooks is direct.DirectRunHooks

    def new_records(self) -> AnyRecords:
        """A buffer of the kind that it takes."""
        if self.native and native is not None:
            records: AnyRecords = native.Records()
            return records
        return Records()

    @classmethod
    def choose(cls, options: Options, told: str = "") -> Way:
        """By the options, else the environment, else the fastest that is safe; logs an obstacle not ``told`` yet."""
        wanted = options.native
        if wanted is None:
            wanted = os.environ.get("TRACESVC_NATIVE") != "0"
        natively = wanted and native is not None
        way = options.way or os.environ.get("TRACESVC_WAY") or "direct"
        obstacle = direct.why_not(natively) if way == "direct" else ""
        if obstacle and obstacle != told:
            logger.info("recording through trio's public instruments: %s", obstacle)
        taken = way == "direct" and not obstacle
        return cls(direct.DirectRunHooks if taken else PublicRunHooks, natively, obstacle)
