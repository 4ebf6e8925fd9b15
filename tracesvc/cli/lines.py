"""A stream of frames as lines of text, an event each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

from tracesvc.cli.words import amount, clock, duration
from tracesvc.events import CancelSource, Event, LossCause, Outcome, ProcKind, Reason
from tracesvc.format import (
    Batch,
    Damage,
    End,
    FormatError,
    Generation,
    Header,
    Item,
    Loss,
    LossRow,
    Procs,
    Snapshot,
    StreamDecoder,
)

__all__ = ["JsonLines", "Lines"]

MAX_TEXT: Final = 200
"""characters of one value that are shown"""


class Lines:
    """Feed it bytes, it gives lines; names of tasks and procs are those that the stream has told so far."""

    def __init__(self) -> None:
        self._decoder = StreamDecoder()
        self._wall: int | None = None
        """time of day, in ns since the epoch, when the clock of the trace showed 0"""
        self._tasks: dict[int, str] = {}
        self._procs: dict[int, str] = {}
        self._good = False
        """there has been a frame"""
        self._early: list[str] = []
        """damage before the first frame, which is told only if there is one: else it is no trace at all"""
        self.ended = False
        """the end mark has come"""
        self.damaged = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that ``data`` completes; empty data say that nothing more is there for now.

        Raises:
          FormatError: this is no trace.
        """
        if data:
            self._decoder.feed(data)
        elif not (self._decoder.pending and self._decoder.resync()):
            self._demand_frames()
            return
        yield from self._drain()

    def close(self) -> Iterator[str]:
        """The lines at the end of the data.

        Raises:
          FormatError: this is no trace.
        """
        self._demand_frames()
        # A last frame that is not whole is no damage: the program is writing it, or was killed then.
        while not self.ended and self._decoder.pending and self._decoder.resync():
            yield from self._drain()

    def _demand_frames(self) -> None:
        if not self._good and self._decoder.lost:
            raise FormatError("not a trace: there is no frame in it")

    def _drain(self) -> Iterator[str]:
        for item in self._decoder:
            if isinstance(item, Item):
                self._good = True
                yield from self._early
                self._early = []
                yield from self._item(item)
            elif self._good:
                yield self._damage(item)
            else:
                self._early = [self._damage(item)]

    def _damage(self, damage: Damage) -> str:
        self.damaged = True
        return self.say_damage(damage)

    def _item(self, item: Item) -> Iterator[str]:
        match item.record:
            case Header() as header:
                self._wall = header.wall - header.monotonic
            case Generation() as generation:
                self._wall = generation.wall - generation.monotonic
            case Procs(rows):
                for row in rows:
                    self._procs[row.proc] = f"{_kind(row.kind)} {row.proc}"
            case Snapshot() as snapshot:
                self._tasks.update(
                    (row.task, self._decoder.text(row.name)) for row in snapshot.tasks
                )
            case Loss(losses):
                yield from map(self.say_loss, losses)
            case Batch() as batch:
                try:
                    events = list(self._decoder.events(batch))
                except FormatError as exc:
                    yield self._damage(Damage(item.frame.offset, item.frame.end, str(exc)))
                    return
                yield from map(self._event, events)
            case End() as end:
                self.ended = True
                yield self.say_end(end)

    def _event(self, event: Event) -> str:
        match event.type:
            case "proc_start":
                self._procs[event.proc] = f"{_kind(event.kind)} {event.proc}"  # type: ignore[attr-defined]
            case "task_create":
                self._tasks[event.task] = event.name  # type: ignore[attr-defined]
        line = self.say(event)
        if event.type == "task_exit":
            self._tasks.pop(event.task, None)  # type: ignore[attr-defined]
        return line

    def _task(self, number: int) -> str:
        name = self._tasks.get(number)
        return f"task {number}" if name is None else f"{name} ({number})"

    def _time(self, time: int) -> int | None:
        return None if self._wall is None else self._wall + time

    # --- how it is said --------------------------------------------------------------------------

    def say(self, event: Event) -> str:
        """An event."""
        parts = []
        for field in event.fields:
            value = getattr(event, field.name)
            said = self._value(field.name, field.role, value, event)
            if said:
                parts.append(said)
        proc = self._procs.get(event.proc, f"proc {event.proc}")
        return f"{clock(self._time(event.time))}  {proc:<10} {event.type:<13} {'  '.join(parts)}".rstrip()

    def _value(self, name: str, role: str, value: Any, event: Event) -> str:
        match role:
            case "task" | "waker" | "parent" | "requester" if value:
                return self._task(value) if role == "task" else f"{name}={self._task(value)}"
            case "task" | "waker" | "parent" | "requester":
                return ""
            case "outcome":
                return "" if value == Outcome.UNKNOWN else _word(Outcome, value)
            case "cancel source":
                return _word(CancelSource, value)
            case "timeout":
                return f"{name}={duration(value)}" if value >= 0 else ""
            case "name" | "text" | "exception" | "message" | "why":
                text = " ".join(str(value).split())
                text = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
                # the name of a new task stands there already
                return "" if event.type == "task_create" and name == "name" else text
            case "reason":
                return _word(Reason, value)
            case "ns":
                return f"{name}={duration(value)}"
            case "value":
                return amount(value)
            case "proc kind":
                return _kind(value)
            case "attributes":
                return (
                    " ".join(f"{k}={v!r:.{MAX_TEXT}}" for k, v in value.items())
                    if isinstance(value, dict)
                    else ""
                )
        return f"{name}={value}" if value or (role == "number" and name != "cut") else ""

    def say_loss(self, row: LossRow) -> str:
        """Events that are not there."""
        proc = self._procs.get(row.proc, f"proc {row.proc}")
        cause = (
            LossCause(row.cause).name.lower().replace("_", " ")
            if row.cause in set(LossCause)
            else str(row.cause)
        )
        what = f"{row.last - row.first + 1:,} events until {clock(self._time(row.end))}: {cause}"
        return f"{clock(self._time(row.start))}  {proc:<10} LOST          {what}"

    def say_damage(self, damage: Damage) -> str:
        """Bytes that cannot be read."""
        return f"DAMAGE  bytes {damage.start:,} to {damage.end:,}: {damage.reason}"

    def say_end(self, end: End) -> str:
        """The end mark."""
        return f"{clock(self._time(end.monotonic))}  END        {end.emitted:,} events, {end.lost:,} lost"


class JsonLines(Lines):
    """The same as JSON: ``type``, ``time`` (ns), ``wall`` (ns since the epoch), ``proc``, ``seq`` and the fields."""

    def say(self, event: Event) -> str:
        """An event."""
        made: dict[str, Any] = {
            "type": event.type,
            "time": event.time,
            "wall": self._time(event.time),
        }
        made.update(proc=event.proc, seq=event.seq)
        for field in event.fields:
            made[field.name] = getattr(event, field.name)
        task = made.get("task")
        if task in self._tasks:
            made["task_name"] = self._tasks[task]
        return json.dumps(made, default=repr)

    def say_loss(self, row: LossRow) -> str:
        """Events that are not there."""
        return json.dumps({"type": "loss", **row._asdict()})

    def say_damage(self, damage: Damage) -> str:
        """Bytes that cannot be read."""
        return json.dumps(
            {"type": "damage", "start": damage.start, "end": damage.end, "reason": damage.reason}
        )

    def say_end(self, end: End) -> str:
        """The end mark."""
        wall = self._time(end.monotonic)
        return json.dumps(
            {
                "type": "end",
                "time": end.monotonic,
                "wall": wall,
                "emitted": end.emitted,
                "lost": end.lost,
            }
        )


def _word(kind: type[IntEnum], number: int) -> str:
    return kind(number).name.lower().replace("_", " ") if number in set(kind) else str(number)


def _kind(number: int) -> str:
    return ProcKind(number).name.lower() if number in set(ProcKind) else f"kind {number}"
