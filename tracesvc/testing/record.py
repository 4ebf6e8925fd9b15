"""`record`: a program run by a `trio.testing.MockClock`, and its trace by that clock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVarTuple, Unpack

import trio
import trio.testing

from tracesvc.model.reader import Trace, read
from tracesvc.recorder import own_run
from tracesvc.recorder.clock import now
from tracesvc.recorder.errors import TracerError
from tracesvc.recorder.options import OptionKeywords
from tracesvc.recorder.tracer import Tracer
from tracesvc.recorder.tree import in_any_task
from tracesvc.testing.retime import Jump, retime

__all__ = ["record"]

Arguments = TypeVarTuple("Arguments")

_QUEUE: Final = 1 << 16
"""full buffers that may wait: nobody reads before the program has ended"""


def record(
    program: Callable[[Unpack[Arguments]], Awaitable[Any]],
    *args: *Arguments,
    seed: int | None = 0,
    path: str | os.PathLike[str] | None = None,
    **options: Unpack[OptionKeywords],
) -> Trace:
    """Run a program by trio's virtual clock and hand back its trace, by that clock too.

    ::

        def test_the_shop_leaks_no_tasks():
            trace = tracesvc.testing.record(shop, 100)
            assert tracesvc.analysis.lint(trace).findings == []

    ``trio.run(program, *args)`` with a `trio.testing.MockClock` that jumps whenever every task is blocked.  In the
    trace a second is one of that clock, however fast the machine is and whatever else it does; the clock begins at 0.
    What happens between two jumps takes no virtual time; events are a nanosecond apart, in the order in which they
    came.
    So a step takes time only where the program lets it: ``trio.lowlevel.current_clock().jump(seconds)``.

    What the machine alone decides is left out: collections of garbage, and the tracer's own counters.  Calls in worker
    threads and real I/O are there, and take no virtual time; trio's clock jumps while they are under way.

    Args:
      program: an async function; what it returns is not kept.
      args: its arguments.
      seed: of the order in which trio runs what is runnable at once: the same seed, the same order.  None: as trio
        likes it, another one each time.
      path: of a file to write the trace to as well, to look at it.
      options: of the tracer, see `tracesvc.recorder.options.Options`.  Unless said otherwise it records no stacks, for
        which of them there are depends on real time.

    Raises:
      TracerBusyError: something is being traced in this process.
      OSError: the file cannot be written.
      TracerError: more was recorded than there is room for: about 65 million events.
      BaseException: what the program raises.
    """
    options = {"stacks": "off", "stall_s": 0, "queue_buffers": _QUEUE, **options}
    clock = trio.testing.MockClock(autojump_threshold=0)
    jumps = _jumps_of(clock)
    tracer = Tracer(**options)
    tracer.start()
    procs: set[int] = set()
    data = b""
    try:
        with _ordered(seed):
            trio.run(program, *args, clock=clock)
    finally:
        procs |= {proc.number for proc in tracer.statistics().procs}
        data = own_run.run(_finish, tracer)
    if lost := tracer.statistics().lost:
        raise TracerError(f"{sum(lost.values()):,} events had no room; record a shorter program")
    data = retime(read(data), jumps, procs)
    if path is not None:
        Path(path).write_bytes(data)
    return read(data)


def _jumps_of(clock: trio.testing.MockClock) -> list[Jump]:
    """The list into which ``clock`` will write when it jumped, in real time, and to which time of its own."""
    jumps: list[Jump] = []
    jump = clock.jump

    def noted(seconds: float) -> None:
        jump(seconds)
        before = time = now()
        while time == before:  # no event has this moment, so each is before it or after
            time = now()
        idle = not in_any_task()
        jumps.append(Jump(time, round(clock.current_time() * 1e9), idle))
        while now() == time:
            pass

    clock.jump = noted  # type: ignore[method-assign]
    return jumps


@contextlib.contextmanager
def _ordered(seed: int | None) -> Iterator[None]:
    """Let trio run what is runnable at once in an order that follows from ``seed``, as far as this trio can be told."""
    run: Any = trio._core._run
    random = getattr(run, "_r", None)
    if seed is None or random is None:
        yield
        return
    state = random.getstate()
    sorts = getattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    random.seed(seed)
    try:
        if sorts is not None:
            run._ALLOW_DETERMINISTIC_SCHEDULING = True
        yield
    finally:
        if sorts is not None:
            run._ALLOW_DETERMINISTIC_SCHEDULING = sorts
        random.setstate(state)


async def _finish(tracer: Tracer) -> bytes:
    """Stop a tracer that nobody has read yet; all that it gives."""
    pieces: list[bytes] = []

    async def read_all() -> None:
        while (piece := await tracer.read()) is not None:
            pieces.append(bytes(piece))

    async with trio.open_nursery() as nursery:
        tracer.attach_reader()
        nursery.start_soon(read_all, name="tracesvc reader")
        await tracer.stop()
    return b"".join(pieces)
