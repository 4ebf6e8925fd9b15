"""A summary as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.console import Console

from tracesvc.analysis import Summary
from tracesvc.analysis.loops import Loop
from tracesvc.analysis.pieces import Annotated
from tracesvc.cli.tables import PlainTable, table
from tracesvc.cli.words import amount, clock, duration, moment, size

__all__ = ["Page"]

ROWS: Final = 15
"""rows per table; what is left out is told, and ``--json`` has it"""
LOOPS: Final = 5
REASONS: Final = 3
"""reasons for being blocked that are shown per task"""
LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}

SOURCES: Final = {
    "called": "cancel() was called",
    "deadline": "its deadline passed",
    "error": "an exception reached its nursery",
    "interrupt": "Ctrl-C",
    "shutdown": "the run ended",
    "abandoned": "its task left the nursery open",
    "unknown": "not known",
}
"""what had a scope cancelled"""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


class Page:
    """Prints a `Summary` table by table; empty ones are left out."""

    def __init__(self, summary: Summary, console: Console) -> None:
        self._summary = summary
        self._console = console

    def print(self) -> None:
        self._head()
        self._tasks()
        self._annotated("Spans", self._summary.spans)
        self._annotated("Regions", self._summary.regions)
        self._structure()
        self._loops()
        self._stalls()
        self._threads()
        self._gc()
        self._counters()
        self._logs()
        self._overhead()
        self._missing()

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(
            text,
            style=style,
            highlight=False,
            markup=False,
            soft_wrap=not self._console.is_terminal,
        )

    def _show(self, rows: PlainTable, left_out: int = 0) -> None:
        self._console.print()
        self._console.print(rows)
        if left_out > 0:
            self._say(f"and {left_out:,} more", "dim")

    def _table(self, title: str, *heads: str, stretch: int | None = None) -> PlainTable:
        """The first column is text, the others are figures."""
        some = () if stretch is None else (stretch,)
        right = [i for i in range(1, len(heads)) if i != stretch]
        return table(self._console, title, *heads, right=right, stretch=some)

    def _clock(self, time: int) -> str:
        started = self._summary.started
        if started is None:
            return duration(time - self._summary.begin)
        return clock(started + time - self._summary.begin)

    # --- the tables ------------------------------------------------------------------------------

    def _head(self) -> None:
        s = self._summary
        source = s.source
        self._say(f"{source.get('name', '?')}  {moment(s.started)}, {duration(s.duration)}", "bold")
        versions = ", ".join(
            f"{what} {source[what]}" for what in ("python", "trio") if what in source
        )
        where = f"pid {source.get('pid', '?')} on {source.get('host', '?')}"
        self._say(f"session {s.session}, {where}{', ' + versions if versions else ''}")
        lost = f"{s.lost:,} lost" if s.lost else "none lost"
        self._say(
            f"{s.events:,} events, {lost}; {size(s.bytes)}, {s.bytes / max(1, s.events):.1f} bytes per event"
        )
        if s.origin:
            self._say(s.origin, "yellow")
        if not s.ended:
            self._say("not ended: the trace is being written, or its program was killed", "yellow")
        for note in s.choice.notes():
            self._say(note, "yellow")

    def _tasks(self) -> None:
        tasks = self._summary.tasks
        if not tasks:
            return
        unknown = any(t.unknown for t in tasks.values())
        heads = ["task", "count", "steps", "running", "runnable", "longest"]
        rows = self._table(
            "Tasks", *heads, *(["unknown"] if unknown else []), "blocked by", stretch=6 + unknown
        )
        for name, t in list(tasks.items())[:ROWS]:
            reasons = sorted(t.blocked.items(), key=lambda item: -item[1])
            blocked = ", ".join(
                f"{r.replace('_', ' ')} {duration(ns)}" for r, ns in reasons[:REASONS]
            )
            if len(reasons) > REASONS:
                blocked += ", ..."
            figures = [f"{t.count:,}", f"{t.steps:,}", duration(t.running), duration(t.runnable)]
            figures.append(duration(t.longest.duration) if t.longest else "")
            figures += [duration(t.unknown)] if unknown else []
            rows.row(self._fitted(name), *figures, blocked)
        self._show(rows, len(tasks) - ROWS)

    def _fitted(self, name: str) -> str:
        """The end of a long dotted name: that is where names differ."""
        room = max(20, self._console.width // 4)
        return name if len(name) <= room else "…" + name[1 - room :]

    def _annotated(self, title: str, found: Mapping[str, Annotated]) -> None:
        if not found:
            return
        rows = self._table(title, title.lower()[:-1], "count", "open", "p50", "p90", "p99", "max")
        for name, one in list(found.items())[:ROWS]:
            d = one.durations
            figures = [duration(ns) for ns in (d.p50, d.p90, d.p99, d.max)] if d.count else [""] * 4
            rows.row(name, f"{one.count:,}", f"{one.open:,}" if one.open else "", *figures)
        self._show(rows, len(found) - ROWS)

    def _structure(self) -> None:
        """How tasks ended, and what was cancelled."""
        structure, outcomes = self._summary.structure, self._summary.outcomes
        ended = {outcome: n for outcome, n in outcomes.items() if outcome != "unknown"}
        if structure.cancelled:
            rows = self._table("Cancellations", "because", "scopes", "tasks reached")
            for source, one in structure.cancelled.items():
                said = SOURCES.get(source, source)
                rows.row(said, f"{one.scopes:,}", f"{one.reached:,}")
            self._show(rows)
        elif ended or not structure.is_empty:
            self._console.print()
        if ended:
            self._say(f"tasks that ended: {_counts(ended)}", "dim")
        nurseries, scopes = structure.nurseries, structure.scopes
        if nurseries.opened:
            most = f", {nurseries.children:,} children at most" if nurseries.closed else ""
            open_ = max(0, nurseries.opened - nurseries.closed)
            self._say(f"nurseries: {nurseries.opened:,}, {open_:,} still open{most}", "dim")
        if scopes.entered:
            self._say(
                f"cancel scopes: {scopes.entered:,} entered, a cancellation ended {scopes.caught:,}",
                "dim",
            )
        if structure.errors:
            first = dict(list(structure.errors.items())[:ROWS])
            more = ", ..." if len(structure.errors) > ROWS else ""
            self._say(f"exceptions that reached a nursery: {_counts(first)}{more}", "dim")

    def _loops(self) -> None:
        loops = self._summary.loops
        if not loops:
            return
        rows = self._table(
            "Run loops", "run", "wall", "busy", "I/O wait", "worst lag", "queue", "longest step"
        )

        def add(name: str, loop: Loop) -> None:
            longest = duration(loop.longest.duration) if loop.longest else ""
            figures = (
                f"{loop.busy:.1%}",
                duration(loop.io_wait),
                duration(loop.lag),
                f"{loop.queue:,}",
                longest,
            )
            rows.row(name, duration(loop.wall), *figures)

        chosen = sorted(loops, key=lambda proc: -loops[proc].wall)[:LOOPS]
        for proc in chosen:
            add(f"{proc} {loops[proc].name}", loops[proc])
        if len(loops) > 1:
            add(f"all {len(loops):,}", self._summary.loop)
        self._show(rows)

    def _stalls(self) -> None:
        stalls = self._summary.stalls
        if not stalls:
            return
        rows = table(self._console, "Longest steps", "at", "took", "run", "task", right=(1, 2))
        for step in stalls:
            rows.row(self._clock(step.time), duration(step.duration), str(step.proc), step.name)
        self._show(rows)

    def _threads(self) -> None:
        threads = self._summary.threads
        if not threads:
            return
        rows = self._table("Calls in threads", "function", "count", "total", "max")
        for name, calls in list(threads.items())[:ROWS]:
            rows.row(name, f"{calls.count:,}", duration(calls.total), duration(calls.max))
        self._show(rows, len(threads) - ROWS)

    def _gc(self) -> None:
        gc = self._summary.gc
        if not gc.count:
            return
        rows = self._table("Garbage collections", "generation", "count", "total", "max", "objects")
        for generation, one in gc.generations.items():
            figures = (
                f"{one.count:,}",
                duration(one.total),
                duration(one.max),
                f"{one.collected:,}",
            )
            rows.row(str(generation), *figures)
        self._show(rows)

    def _counters(self) -> None:
        counters = self._summary.counters
        if not counters:
            return
        rows = self._table("Counters", "counter", "last", "min", "max")
        for name, c in list(counters.items())[:ROWS]:
            # the one counter of the tracer's that is a time
            shown = duration if name == "trio.loop_lag" else amount
            rows.row(name, shown(c.last), shown(c.min), shown(c.max))
        self._show(rows, len(counters) - ROWS)

    def _logs(self) -> None:
        logs = self._summary.logs
        if not logs.levels:
            return
        rows = table(self._console, "Last messages", "at", "level", "message", stretch=(2,))
        for message in logs.last:
            text = " ".join(message.message.split())
            text += "".join(f" {key}={value}" for key, value in (message.attributes or {}).items())
            rows.row(self._clock(message.time), LEVELS.get(message.level, str(message.level)), text)
        self._show(rows)
        levels = ", ".join(f"{count:,} {LEVELS.get(n, n)}" for n, count in logs.levels.items())
        self._say(f"messages in all: {levels}", "dim")

    def _overhead(self) -> None:
        changes = self._summary.overhead
        if not changes:
            return
        rows = table(self._console, "Overhead", "time", "of the budget", "left out", right=[1])
        for change in changes[:ROWS]:
            left_out = change.left_out or "nothing"
            rows.row(self._clock(change.time), f"{change.share:.2f} x", left_out)
        self._show(rows, len(changes) - ROWS)

    def _missing(self) -> None:
        s = self._summary
        if s.losses:
            rows = table(
                self._console,
                "Losses",
                "cause",
                "events",
                "times",
                "first at",
                "last until",
                right=(1, 2),
            )
            for cause, lost in s.losses.items():
                first, last = (
                    min(i.start for i in lost.intervals),
                    max(i.end for i in lost.intervals),
                )
                when = (
                    self._clock(first),
                    self._clock(last) if lost.count == len(lost.intervals) else "...",
                )
                rows.row(cause.replace("_", " "), f"{lost.events:,}", f"{lost.count:,}", *when)
            self._show(rows)
        if s.missing:
            self._say(f"{s.missing:,} events are neither stored nor said to be lost", "red")
        if s.damaged_bytes:
            self._say(
                f"damaged: {size(s.damaged_bytes)}; first {s.damage[0].reason} at byte {s.damage[0].start:,}",
                "red",
            )
