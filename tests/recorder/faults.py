"""A program that goes through all of the recorder while memory runs out: what `test_faults` and the campaign run."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import trio
from trio.testing import MockClock

import tracesvc
from tests.recorder.recording import Recording, finish
from tracesvc import Tracer
from tracesvc.recorder.recording import HOOKS
from tracesvc.recorder.recording import Recording as TwinRecording

FOR_EVER = (1 << 63) - 1


class Faults:
    """Runs `program` with the allocations ``first`` to ``last`` of the recorder failing."""

    def __init__(self, shim: ModuleType, **options: Any) -> None:
        self._shim = shim
        self._options = options
        shim.install()

    def run(self, first: int, last: int) -> tuple[Recording, int, int]:
        """(what was recorded, allocations there were, how many failed)."""
        tracer = Tracer(**{"stacks": "all", "buffer_events": 32, **self._options})
        tracer.start()
        tracer._drain.events = self._shim.Armed(tracer._drain.events)  # encoding, too
        self._runs = tracer._runs
        unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
        clock = MockClock(autojump_threshold=0)
        try:
            self._shim.arm(first, last)
            result = trio.run(self._main, clock=clock)
            if (
                last == FOR_EVER
            ):  # as long as the program runs; else there would be nothing to look at
                self._shim.arm(-1, -1)
            data = trio.run(finish, tracer)
        finally:
            allocations, failed = self._shim.disarm()
            sys.unraisablehook = unraisable
        assert result == EXPECTED
        return Recording(data, statistics=tracer.statistics()), allocations, failed

    async def _main(self) -> list[Any]:
        runner: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        table = runner.instruments
        if hasattr(table, "stand_in_for"):  # the direct way
            runner.instruments = _Table(self._shim, table)
        else:
            (run,) = self._runs
            for hook in HOOKS[:-1]:
                setattr(run, hook, self._shim.Armed(getattr(run, hook)))
        try:
            # The twin's annotations are many lines of Python, and raise MemoryError as any of the program's may.
            native = tracer_is_native(self._runs)
            return await program(self._shim.Armed if native else lambda function: function)
        finally:
            runner.instruments = table


def tracer_is_native(runs: list[Any]) -> bool:
    (run,) = runs
    return not isinstance(run.recording, TwinRecording)


def _Table(shim: ModuleType, table: Any) -> Any:
    class Table(shim.Armed):  # type: ignore[misc, name-defined]
        """The recorder's table as trio sees it; what goes on within its calls counts."""

        call = shim.Armed(table.call)
        add_instrument = table.add_instrument
        remove_instrument = table.remove_instrument

    return Table(table)


EXPECTED = [0, 1, 2, "cancelled", "in a thread", "locked", "number 2", "done"]


async def program(armed: Any) -> list[Any]:
    """Every hook, every annotation, several kinds of waits; the same result whatever befalls the recorder."""
    log, counter = armed(tracesvc.log), armed(tracesvc.counter)
    results: list[Any] = []
    lock, event = trio.Lock(), trio.Event()

    async def sends(channel: trio.MemorySendChannel[int]) -> None:
        async with channel:
            for number in range(3):
                log("sending", number=number, text="ä" * number)
                await channel.send(number)

    async def locks() -> None:
        async with lock:
            await trio.sleep(1)
        event.set()

    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](0)
        nursery.start_soon(sends, send, name="kein schlichter Näme")
        nursery.start_soon(locks)
        results += [number async for number in receive]
    with trio.move_on_after(2) as scope:
        await trio.sleep_forever()
    if scope.cancelled_caught:
        results.append("cancelled")
    span = tracesvc.span("work", size=1.5, blob=b"x", nothing=None, big=1 << 80)
    region = tracesvc.region("part", of="work")
    armed(span.__enter__)()
    armed(region.__enter__)()
    counter("level", 2.5)
    results.append(await trio.to_thread.run_sync(lambda: "in a thread"))
    armed(region.__exit__)(None, None, None)
    armed(span.__exit__)(None, None, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(locks)
        await event.wait()
    results.append("locked")
    results += [text async for text in numbers() if text.endswith("2")]
    results.append("done")
    return results


async def numbers() -> Any:
    for number in range(3):
        await trio.sleep(0.5)
        yield f"number {number}"
