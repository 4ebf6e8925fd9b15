"""What an annotation costs, beside what others take for the like, and what `tracesvc` costs to import.

Instructions by callgrind, as the difference of two run lengths, less those of an empty loop; on one thread, in a trio
run, in processes that differ in nothing but who records.  Nobody reads what ours records: buffers that find no room are
dropped, as the output of the peers goes to ``/dev/null`` or nowhere.  A peer that is not installed is told as such.

Wall clock per event: a hook called by ``map`` from C, at 1,000 events a time, the least of many; so the call is in it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import json as json_module
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc
from benchmarks.callgrind import counts, mark
from benchmarks.workloads import steps
from tracesvc.recorder.annotations import TWINS
from tracesvc.recorder.native import native
from tracesvc.recorder.recording import new_recording
from tracesvc.recorder.session import Session

__all__ = ["BARS", "counted", "main"]

BARS: Final = {
    ("native", "region pair"): 2000,
    ("native", "span pair, 2 attributes"): 5000,
    ("native", "log"): 1500,
    ("native", "counter"): 800,
    ("off", "region pair"): 1700,
    ("off", "span pair, 2 attributes"): 1700,
    ("off", "log"): 450,
    ("off", "counter"): 450,
}
"""instructions, at most"""
BAR_EVENT: Final = 50.0
"""ns of wall clock per recorded event"""
BAR_IMPORT: Final = 15.0
"""ms of processor time, beyond trio and msgpack"""

Work = Callable[[int], None]


# --- ours ----------------------------------------------------------------------------------------


def _works(of: Any) -> dict[str, Work]:
    """The four annotations, n times each; ``of`` has them."""
    span, region, log, counter = of["span"], of["region"], of["log"], of["counter"]

    def region_pair(n: int) -> None:
        for _ in range(n):
            with region("name"):
                pass

    def span_pair(n: int) -> None:
        for number in range(n):
            with span("name", path="/a/path", number=number):
                pass

    def log_line(n: int) -> None:
        for _ in range(n):
            log("message")

    def count(n: int) -> None:
        for _ in range(n):
            counter("name", 1.5)

    return {
        "region pair": region_pair,
        "span pair, 2 attributes": span_pair,
        "log": log_line,
        "counter": count,
    }


def _nothing(n: int) -> None:
    for _ in range(n):
        pass


@contextlib.contextmanager
def _off() -> Iterator[dict[str, Work]]:
    yield _works(vars(tracesvc))


@contextlib.contextmanager
def _on(natively: bool) -> Iterator[dict[str, Work]]:
    tracer = tracesvc.Tracer(queue_buffers=2, stall_s=0, native=natively)
    tracer.start()
    yield _works(vars(tracesvc) if natively else TWINS)


# --- peers ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opentelemetry() -> Iterator[dict[str, Work]]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("benchmark")

    def spans(n: int) -> None:
        for number in range(n):
            with tracer.start_as_current_span(
                "name", attributes={"path": "/a/path", "number": number}
            ):
                pass

    yield {"span pair, 2 attributes": spans}


@contextlib.contextmanager
def _eliot() -> Iterator[dict[str, Work]]:
    import eliot

    with Path(os.devnull).open("w") as nowhere:
        eliot.to_file(nowhere)

        def actions(n: int) -> None:
            for number in range(n):
                with eliot.start_action(action_type="name", path="/a/path", number=number):
                    pass

        yield {"span pair, 2 attributes": actions}


@contextlib.contextmanager
def _structlog() -> Iterator[dict[str, Work]]:
    import structlog

    with Path(os.devnull).open("w") as nowhere:
        processors: list[Any] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ]
        structlog.configure(processors, logger_factory=structlog.WriteLoggerFactory(nowhere))
        logger = structlog.get_logger()

        def lines(n: int) -> None:
            for _ in range(n):
                logger.info("message")

        yield {"log": lines}


@contextlib.contextmanager
def _logging() -> Iterator[dict[str, Work]]:
    logger = logging.getLogger("benchmark")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    with Path(os.devnull).open("w") as nowhere:
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)

        def lines(n: int) -> None:
            for _ in range(n):
                logger.info("message")

        yield {"log": lines}


@contextlib.contextmanager
def _viztracer() -> Iterator[dict[str, Work]]:
    import viztracer

    tracer = viztracer.VizTracer(verbose=0)
    tracer.start()

    def events(n: int) -> None:
        for _ in range(n):
            with tracer.log_event("name"):
                pass

    def instants(n: int) -> None:
        for _ in range(n):
            tracer.log_instant("message")

    yield {"region pair": events, "log": instants}
    tracer.stop()


@contextlib.contextmanager
def _viztracer_async() -> Iterator[dict[str, Work]]:
    """``log_async``: every function call, with the task that it is in."""
    import viztracer

    tracer = viztracer.VizTracer(verbose=0, log_async=True)
    tracer.start()
    yield {}
    tracer.stop()


STEP: Final = "checkpoint step"
"""of trio; what ours and ``log_async`` record of it is what its task does"""
FOUR: Final = ("region pair", "span pair, 2 attributes", "log", "counter")


@dataclass(frozen=True)
class Recorder:
    """Who records, and ``works`` of which so many are compared."""

    distribution: str
    set_up: Callable[[], contextlib.AbstractContextManager[dict[str, Work]]]
    n: int
    works: tuple[str, ...]


RECORDERS: Final = {
    "off": Recorder("tracesvc", _off, 500, FOUR),
    "native": Recorder("tracesvc", lambda: _on(True), 500, FOUR),
    "Python": Recorder("tracesvc", lambda: _on(False), 500, FOUR),
    "OpenTelemetry": Recorder("opentelemetry-sdk", _opentelemetry, 100, FOUR[1:2]),
    "eliot": Recorder("eliot", _eliot, 100, FOUR[1:2]),
    "structlog": Recorder("structlog", _structlog, 100, FOUR[2:3]),
    "logging": Recorder("", _logging, 100, FOUR[2:3]),
    "viztracer": Recorder("viztracer", _viztracer, 200, ("region pair", "log")),
    "viztracer log_async": Recorder("viztracer", _viztracer_async, 200, ()),
}
STEPS: Final = 1000


def installed(recorder: str) -> bool:
    """Whether it can be compared here."""
    if recorder in ("native", "off") and native is None:
        return False
    distribution = RECORDERS[recorder].distribution
    try:
        return not distribution or importlib.metadata.version(distribution) != ""
    except importlib.metadata.PackageNotFoundError:
        return False


# --- instructions --------------------------------------------------------------------------------


def count(recorder: str) -> None:
    """Under callgrind: each of its works, with marks around two run lengths."""
    it = RECORDERS[recorder]

    async def run() -> None:
        with it.set_up() as works:
            for work in (_nothing, *(works[name] for name in it.works)):
                work(it.n)
                for n in (it.n, 2 * it.n):
                    gc.collect()
                    mark()
                    work(n)
                    mark()
            await steps(STEPS)
            for n in (STEPS, 2 * STEPS):
                mark()
                await steps(n)
                mark()
            os._exit(0)  # whatever it would do at the end is not what is counted

    trio.run(run)


def counted(recorder: str) -> dict[str, int]:
    """Instructions of each of its works, and of a step of trio under it."""
    it = RECORDERS[recorder]
    marks = counts(["-m", "benchmarks.annotations", "--count", recorder], 4 * (len(it.works) + 2))
    more = [long - short for short, long in zip(marks[1::4], marks[3::4], strict=True)]
    costs = {
        name: round((cost - more[0]) / it.n)
        for name, cost in zip(it.works, more[1:-1], strict=True)
    }
    return {**costs, STEP: round(more[-1] / STEPS)}


# --- time ----------------------------------------------------------------------------------------


def ns_per_event(rounds: int = 300, n: int = 1000) -> dict[str, float]:
    """Of the native hooks of a step that yields, and of a counter; an empty dict without the native part."""
    if native is None:
        return {}
    tracer, best = (
        tracesvc.Tracer(queue_buffers=2, stall_s=0),
        dict.fromkeys(("hooks", "counter"), 1e9),
    )

    async def run() -> None:
        tracer.start()
        records = native.Records(4 * n)
        session = Session(1 << 16, 2, lambda: records)
        hooks = new_recording(session.process, -1)
        task = trio.lowlevel.current_task()
        tasks = [task] * n
        for _ in range(rounds):
            records.clear()
            began = time.perf_counter_ns()
            for _ in zip(
                map(hooks.before_task_step, tasks),
                map(hooks.task_scheduled, tasks),
                map(hooks.after_task_step, tasks),
                strict=True,
            ):
                pass
            best["hooks"] = min(best["hooks"], (time.perf_counter_ns() - began) / records.events)
            began = time.perf_counter_ns()
            deque(map(tracesvc.counter, repeat("name", n), repeat(1.5)), 0)
            best["counter"] = min(best["counter"], (time.perf_counter_ns() - began) / n)
        await tracer.stop()

    trio.run(run)
    return best


IMPORT: Final = """
import sys, time, trio, msgpack
began = time.process_time()
import tracesvc
then = time.process_time()
tracesvc.open_tracer, tracesvc.FileSink
print((then - began) * 1e3, (time.process_time() - began) * 1e3)
"""


def import_ms(runs: int = 25) -> tuple[float, float]:
    """Processor time of ``import tracesvc`` beyond trio and msgpack, and until `open_tracer` is there, too.

    The median of so many processes; their byte code is kept in a directory of its own, as it usually is.
    """
    with tempfile.TemporaryDirectory(prefix="tracesvc-bench-") as directory:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": directory}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", IMPORT]
        lines = [subprocess.check_output(command, env=environment) for _ in range(runs + 1)][1:]
    bare, all_of_it = zip(*(map(float, line.split()) for line in lines), strict=True)
    return statistics.median(bare), statistics.median(all_of_it)


# --- report --------------------------------------------------------------------------------------


def main(json: bool = False) -> int:
    """Count, time and compare; how many bars are missed."""
    there = [recorder for recorder in RECORDERS if installed(recorder)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        table = dict(zip(there, pool.map(counted, there), strict=True))
    nanoseconds, (imported, ready) = ns_per_event(), import_ms()
    missed = [
        f"{what}, {recorder}: {table[recorder][what]} instructions, not {bar}"
        for (recorder, what), bar in BARS.items()
        if recorder in table and table[recorder][what] > bar
    ]
    missed += [
        f"{what}: {ns:.0f} ns per event, not {BAR_EVENT:.0f}"
        for what, ns in nanoseconds.items()
        if ns > BAR_EVENT
    ]
    if imported > BAR_IMPORT:
        missed.append(f"import: {imported:.1f} ms, not {BAR_IMPORT}")
    if json:
        figures = {
            "instructions": table,
            "ns_per_event": nanoseconds,
            "import_ms": imported,
            "open_tracer_ms": ready,
        }
        print(json_module.dumps({"annotations": figures, "missed": missed}))
    else:
        _print(table, nanoseconds, imported, ready)
        for miss in missed:
            print("  missed:", miss)
    return len(missed)


def _print(
    table: dict[str, dict[str, int]], nanoseconds: dict[str, float], imported: float, ready: float
) -> None:
    print("annotations: instructions per operation, and how many times ours that is")
    for what in (*FOUR, STEP):
        print(f"  {what}")
        base = table.get("native", {}).get(what)
        for recorder in RECORDERS:
            cost = table.get(recorder, {}).get(what)
            if cost is not None:
                ratio = f"{cost / base:>8.2f} x" if base else ""
                print(f"    {recorder:<22}{cost:>12,} {ratio}")
    for recorder in RECORDERS:
        if recorder not in table:
            print(f"  {recorder}: not installed")
    for what, ns in nanoseconds.items():
        print(f"  wall clock per event, {what}: {ns:.1f} ns")
    print(f"  import of tracesvc beyond trio and msgpack: {imported:.1f} ms of processor time")
    print(f"  and until its open_tracer is there: {ready:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", metavar="RECORDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        count(arguments.count)
    else:
        raise SystemExit(main(arguments.json) > 0)
