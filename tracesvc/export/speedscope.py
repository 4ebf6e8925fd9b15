"""speedscope's JSON: per run, which task ran when, and where events are missing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO, Any, Final

import numpy as np

from tracesvc.export.replay import NAMELESS, Chunk, Replay
from tracesvc.export.report import Exported
from tracesvc.export.words import lost_text
from tracesvc.model.states import State

__all__ = ["write"]

SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def write(replay: Replay, out: Callable[[bytes], Any]) -> Exported:
    """Write all of a trace; the events of each run wait in a temporary file until the others are done."""
    with ExitStack() as stack:
        writer = _Writer(replay, stack)
        for chunk in replay.chunks():
            writer.chunk(chunk)
        writer.finish(out)
    report = writer.report
    report.events, report.repaired = replay.events, replay.lives.repaired
    return report


class _Run:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.begin: int | None = None
        self.last = 0


class _Writer:
    def __init__(self, replay: Replay, stack: ExitStack) -> None:
        self._replay, self._stack = replay, stack
        self._frames: dict[str, int] = {}
        self._runs: dict[int, _Run] = {}
        self.report: Final = Exported()

    def _frame(self, name: str) -> int:
        return self._frames.setdefault(name, len(self._frames))

    def _run(self, proc: int) -> _Run:
        run = self._runs.get(proc)
        if run is None:
            run = self._runs[proc] = _Run(self._stack.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
        return run

    def chunk(self, chunk: Chunk) -> None:
        """The steps that end in a chunk."""
        moves, strings = chunk.moves, chunk.columns.strings
        steps = np.flatnonzero(moves.before == State.RUNNING)
        columns = (moves.proc, moves.since, moves.time, moves.name)
        rows = list(zip(*(column[steps].tolist() for column in columns), strict=True))
        first: dict[int, int] = {}
        for proc, since, _, _ in rows:
            first.setdefault(proc, since)
        for loss in chunk.losses:
            self.report.lost += loss.last - loss.first + 1
            if loss.proc in first or loss.proc in self._runs:
                end = min(loss.end, first.get(loss.proc, loss.end))
                self._put(loss.proc, loss.start, end, lost_text(loss))
        for proc, since, time, name in rows:
            self._put(proc, since, time, strings[name] or NAMELESS)

    def _put(self, proc: int, begin: int, end: int, name: str) -> None:
        run = self._run(proc)
        begin = max(begin, run.last)
        end = max(begin, end)
        comma = "" if run.begin is None else ","
        run.begin = begin if run.begin is None else run.begin
        frame = self._frame(name)
        run.last = end
        run.file.write(
            f'{comma}{{"type":"O","frame":{frame},"at":{begin}}},{{"type":"C","frame":{frame},"at":{end}}}'.encode()
        )
        self.report.written["slice"] += 1

    def finish(self, out: Callable[[bytes], Any]) -> None:
        """Put everything together."""
        name = json.dumps(str(self._replay.source.get("name", "trio")))
        frames = json.dumps([{"name": frame} for frame in self._frames])
        head = f'{{"$schema":"{SCHEMA}","exporter":"tracesvc","name":{name},"shared":{{"frames":{frames}}},"profiles":['
        out(head.encode())
        for i, (proc, run) in enumerate(sorted(self._runs.items())):
            info = self._replay.procs.get(proc)
            title = json.dumps(f"run {proc}" if info is None else f"{info.name} {proc}")
            out(
                f'{"," if i else ""}{{"type":"evented","name":{title},"unit":"nanoseconds",'
                f'"startValue":{run.begin or 0},"endValue":{run.last},"events":['.encode()
            )
            run.file.seek(0)
            while data := run.file.read(1 << 20):
                out(data)
            out(b"]}")
        if not self._runs:  # the format wants at least one
            out(
                b'{"type":"evented","name":"no run","unit":"nanoseconds","startValue":0,"endValue":0,"events":[]}'
            )
        out(b"]}\n")
