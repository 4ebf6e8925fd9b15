"""What a tracer can be told, and how it takes its way into trio."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

import trio

from tracesvc.format.box import MIN_SIZE
from tracesvc.frozen import Frozen, frozen, frozen_by_keyword
from tracesvc.recorder import direct
from tracesvc.recorder.boxes import default_directory
from tracesvc.recorder.choice import GROUPS, Choice, Tasks, groups_of, named
from tracesvc.recorder.errors import TracerError
from tracesvc.recorder.hooks import PublicRunHooks, RunHooks
from tracesvc.recorder.identity import number_of
from tracesvc.recorder.native import native, no_lock
from tracesvc.recorder.policy import Policy
from tracesvc.recorder.records import AnyRecords, Records
from tracesvc.recorder.redaction import Redaction
from tracesvc.recorder.regulator import Budget
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
    groups: Collection[str] | None
    tasks: Collection[str | trio.Nursery | trio.lowlevel.Task] | None
    spans: Collection[str] | None
    watch: Literal["named", "all"]
    redact: Redaction | None
    budget: float | None
    budget_bytes: float | None
    black_box: str | os.PathLike[str] | bool
    black_box_bytes: int
    way: Literal["direct", "public"] | None
    native: bool | None


@frozen_by_keyword
class Options(Frozen):
    """What a tracer can be told, as keywords of `tracesvc.open_tracer` and `tracesvc.Tracer`.

    Attributes:
      name: what the program is called in the trace; by default the name of its script.
      buffer_events: events in a full buffer, 16 to 65,536.
      queue_buffers: full buffers that may wait for the reader; what comes when there is no room is dropped and counted.
      stacks: of which waits it is recorded where the task was suspended: ``"slow"``, those that last ``slow_block_s``
        or more; ``"all"``; ``"off"``.
      slow_block_s: seconds.
      stall_s: seconds that a step may run before it is recorded what was running; 0: for ever.
      groups: of events that are recorded, see `tracesvc.recorder.choice.GROUPS`; by default all but ``"scopes"``.
        Where each begins with ``+`` or ``!`` they are added to those, or left out.
      tasks: that are recorded, with all below them: their names as patterns, nurseries (the tasks in them), tasks.
        A pattern that begins with ``!`` leaves out; of several that fit a name the last one counts.
      spans: names of the spans and regions that are recorded, as patterns of the same kind.
      watch: which channels, locks, semaphores, limiters and conditions have counters: those given to `tracesvc.watch`
        (``"named"``), or ``"all"``.
      redact: what must not leave the program, see `tracesvc.Redaction`.
      budget: what tracing may cost, as a share of one processor's time (0.01: one per cent); over it, less is recorded,
        step by step, see `tracesvc.recorder.governor`. None: whatever it costs.
      budget_bytes: bytes of the trace, a second; in the same way.
      black_box: keep what was recorded last where it outlives the process, for ``tracesvc recover``: a directory for
        the boxes of programs, or True for ``/dev/shm/tracesvc-UID``.
      black_box_bytes: what the box takes there, from the start on; at least 4 MiB.
      way: into trio, ``"direct"`` or ``"public"``; by default direct where it is known to be safe.
      native: whether the native recorder is used; by default where it was built.

    The environment variables ``TRACESVC_WAY`` (direct, public) and ``TRACESVC_NATIVE`` (0) change the defaults of the
    last two; they are for who wants to compare.

    Raises:
      TypeError: ``redact`` is no `tracesvc.Redaction`.
      ValueError: one is out of its range, or no group is called so.
    """

    name: str | None = None
    buffer_events: int = 1024
    queue_buffers: int = 256
    stacks: Literal["slow", "all", "off"] = "slow"
    slow_block_s: float = 0.001
    stall_s: float = 0.1
    groups: Collection[str] | None = None
    tasks: Collection[str | trio.Nursery | trio.lowlevel.Task] | None = None
    spans: Collection[str] | None = None
    watch: Literal["named", "all"] = "named"
    redact: Redaction | None = None
    budget: float | None = None
    budget_bytes: float | None = None
    black_box: str | os.PathLike[str] | bool = False
    black_box_bytes: int = 48 << 20
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
        self._check_choice()
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ValueError(f"budget must be a share, over 0 and up to 1, not {self.budget}")
        if self.budget_bytes is not None and not self.budget_bytes > 0:
            raise ValueError(f"budget_bytes must be positive, not {self.budget_bytes}")
        if not isinstance(self.redact, Redaction | None):
            raise TypeError(f"redact must be a tracesvc.Redaction, not {self.redact!r}")
        if self.black_box_bytes < MIN_SIZE:
            raise ValueError(
                f"black_box_bytes must be at least {MIN_SIZE}, not {self.black_box_bytes}"
            )
        if self.watch not in ("named", "all"):
            raise ValueError(f"watch must be 'named' or 'all', not {self.watch!r}")
        if self.way not in (None, "direct", "public"):
            raise ValueError(f"way must be 'direct' or 'public', not {self.way!r}")

    def _check_choice(self) -> None:
        for name in ("groups", "tasks", "spans"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a list, not one text")
        unknown = sorted({group.lstrip("+!") for group in self.groups or ()} - GROUPS.keys())
        if unknown:
            raise ValueError(f"there is no group {unknown[0]!r}, only {', '.join(GROUPS)}")
        if self.tasks is not None and "scheduler" not in groups_of(self.groups):
            raise ValueError("some tasks can be recorded only with the group 'scheduler'")
        for thing in self.tasks or ():
            if not isinstance(thing, str | trio.Nursery | trio.lowlevel.Task):
                raise TypeError(f"tasks takes names, nurseries and tasks; {thing!r} is none")

    def choice(self) -> Choice | None:
        """What is recorded; None: everything."""
        if self.groups is None and self.tasks is None:
            return None
        groups = groups_of(self.groups)
        tasks = None if self.tasks is None else Tasks(self.tasks)
        return Choice(groups, tasks if "scheduler" in groups else Tasks(()))

    def policy(self, choice: Choice | None) -> Policy | None:
        """What is decided of each annotation; None: nothing, all are recorded as they are."""
        if choice is None and self.spans is None and self.redact is None:
            return None
        spans = None if self.spans is None else named(self.spans)
        others = bool(self.spans) and all(pattern.startswith("!") for pattern in self.spans or ())

        def is_recorded(name: object) -> bool:
            wanted = None if spans is None or not isinstance(name, str) else spans(name)
            return others if wanted is None else wanted

        return Policy(
            groups=groups_of(None) if choice is None else choice.groups,
            tasks=None if choice is None or self.tasks is None else choice.chosen,
            named=None if spans is None else is_recorded,
            redaction=self.redact,
        )

    @property
    def in_header(self) -> dict[str, Any]:
        """What a trace says of them: sizes, and what is not in it."""
        said: dict[str, Any] = {"buffer_events": self.buffer_events}
        if self.groups is not None:
            said["groups"] = [group for group in GROUPS if group in groups_of(self.groups)]
        if self.tasks is not None:
            said["tasks"] = [_said(thing) for thing in self.tasks]
        if self.spans is not None:
            said["spans"] = [cut_name(pattern) for pattern in self.spans]
        if self.redact is not None:
            said["redacted"] = True
        if self.budget is not None:
            said["budget"] = float(self.budget)
        if self.budget_bytes is not None:
            said["budget_bytes"] = float(self.budget_bytes)
        return said

    @property
    def limits(self) -> Budget | None:
        """What tracing may cost; None: anything."""
        if self.budget is None and self.budget_bytes is None:
            return None
        return Budget(self.budget, self.budget_bytes)

    @property
    def source_name(self) -> str:
        """What the trace calls the program."""
        return cut_name(self.name or program_name())

    @property
    def box_directory(self) -> Path | None:
        """Where there is to be a black box; None: nowhere."""
        if isinstance(self.black_box, bool):
            return default_directory() if self.black_box else None
        return Path(self.black_box)

    @property
    def slow(self) -> int:
        """ns that a wait lasts whose stack is recorded; negative: none."""
        return {"slow": int(self.slow_block_s * 1e9), "all": 0, "off": -1}[self.stacks]


def _said(thing: object) -> str:
    if isinstance(thing, str):
        return cut_name(thing)
    if isinstance(thing, trio.Nursery):
        return cut_name(f"<nursery {number_of(thing)} of {thing.parent_task.name}>")
    return cut_name(f"<task {getattr(thing, 'name', '')}>")


@frozen
class Way(Frozen):
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
        """By the options, else the environment, else the fastest that is safe; logs an obstacle not ``told`` yet.

        Raises:
          TracerError: the interpreter runs without its lock.
        """
        if refused := no_lock():
            raise TracerError(f"this Python cannot be traced: {refused}")
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
