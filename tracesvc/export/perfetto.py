"""Perfetto's protobuf format: for ui.perfetto.dev and ``trace_processor``.

Tracks: one per task with a slice for each state it was in, one per run (a thread) with the steps in it, one per span;
regions lie on a track below their task's, nurseries and cancel scopes on another.  A wake-up is an instant of the waker
with a flow to the runnable slice that it began, which says the cause; a wait says the stack, where the trace has it.  A
cancellation is an instant of who asked for it for each task that it reached, with a flow to an instant there.  What was
lost is a slice on a track of its own, and stands in the statistics of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import (
    Counter,
    Frames,
    GcEnd,
    GcStart,
    IoWaitEnd,
    IoWaitStart,
    Log,
    LossCause,
    ProcKind,
    Reason,
    RegionBegin,
    RegionEnd,
    SpanBegin,
    SpanEnd,
    ThreadEnd,
    ThreadStart,
    WakeCause,
)
from tracesvc.export import perfetto_proto as proto
from tracesvc.export.lives import CREATE, RUNNABLE
from tracesvc.export.nests import DRAWN, Arrow, Nests
from tracesvc.export.notes import leave_out, notes_in
from tracesvc.export.pairs import Paired, Pairs
from tracesvc.export.replay import NAMELESS, Chunk, ProcInfo, Replay
from tracesvc.export.report import Exported
from tracesvc.export.wait_stacks import WaitStacks
from tracesvc.export.wire import Nested, Part, Raw, Records, Some
from tracesvc.model.columns import Table
from tracesvc.model.states import State

__all__ = ["write"]

Integers: TypeAlias = NDArray[np.int64]

PROCESS, TASK, REGIONS, SPAN, RUN, COUNTER, LOSSES, IO, GC, NESTS = range(10)
"""kinds of track; a track's uuid is its id times KINDS and its kind"""
KINDS: Final = 16
_PROCESS_TRACK: Final = KINDS + PROCESS

BEGIN, END, INSTANT, SAMPLE = 1, 2, 3, 4
_WAKE, _IO, _UNKNOWN, _RUNNING, _RUNNABLE = 1, 2, 3, 4, 5
_WAITS: Final = 16
_GC_NAMES: Final = 48
_NAMES: Final = 64
"""ids of names: the fixed ones lie below, then those of the trace"""
_FIXED: Final = {
    _WAKE: "wake",
    _IO: "I/O wait",
    _UNKNOWN: "unknown: events lost",
    _RUNNING: "running",
    _RUNNABLE: "runnable",
    **{_WAITS + r: f"waiting: {r.name.lower().replace('_', ' ')}" for r in Reason},
    **{_GC_NAMES + g: f"garbage collection, generation {g}" for g in range(3)},
}
_STATE_NAMES: Final = np.array([0, _RUNNABLE, _RUNNING, _WAITS, 0, _RUNNABLE, _UNKNOWN], np.int64)
"""state -> name; of a waiting one the reason is added"""
_CAUSES: Final = {int(cause): cause.name.lower() for cause in WakeCause if cause}
_CAUSE_NAME: Final = 1
"""id of the name of the debug annotation that says a cause; the ids of the causes are their numbers"""
_PARENT: Final = proto.int_field(5, _PROCESS_TRACK)
_CANCELS: Final = 1 << 62
"""makes flows of cancellations others than those of the wake-ups at the same time"""
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


def write(replay: Replay, out: Callable[[bytes], Any]) -> Exported:
    """Write all of a trace; ``out`` takes the bytes, piece by piece."""
    return _Writer(replay, out).run()


class _Writer:
    def __init__(self, replay: Replay, out: Callable[[bytes], Any]) -> None:
        self._replay, self._out = replay, out
        self._report = Exported()
        self._known: set[int] = set()
        """tracks that have been described"""
        self._named = np.zeros(0, np.bool_)
        """index of a text -> whether it has been given out as a name"""
        self._io, self._gc, self._calls = Pairs(), Pairs(), Pairs()
        self._stacks = WaitStacks()
        self._nests = Nests(self._report)

    def run(self) -> Exported:
        self._out(proto.defaults(1) + proto.defaults(2) + proto.interned(_FIXED))
        self._out(proto.interned_words({_CAUSE_NAME: "cause"}, _CAUSES))
        self._begun = False
        for chunk in self._replay.chunks():
            self._chunk(chunk)
        report, replay = self._report, self._replay
        if report.lost:
            self._out(proto.loss_stats(report.lost))
        report.events, report.repaired = replay.events, replay.lives.repaired
        return report

    def _chunk(self, chunk: Chunk) -> None:
        if not self._begun:
            self._begun = True
            source = self._replay.source
            pid = source.get("pid")
            self._pid = pid if isinstance(pid, int) and pid > 0 else 1
            name = str(source.get("name", "trio"))
            self._out(proto.process_track(_PROCESS_TRACK, self._pid, name))
            if not chunk.generations and self._replay.wall is not None:
                self._out(proto.clock_snapshot(*self._replay.pair(*self._replay.wall)))
        for generation in chunk.generations:
            moment = self._replay.pair(generation.monotonic, generation.wall)
            self._out(proto.clock_snapshot(*moment))
        self._tracks(chunk)
        self._states(chunk)
        self._pairs(chunk)
        self._annotations(chunk)
        self._notes(chunk)
        self._edges(chunk)
        self._arrows(self._nests.arrows(chunk.columns))
        leave_out(chunk.columns, self._report, DRAWN)
        self._losses(chunk)
        opened = [one for one in chunk.opened if one.kind == "span"]
        if opened:
            tracks = np.array([one.id for one in opened]) * KINDS + SPAN
            names = [one.name.encode("utf-8", "replace") or b"span" for one in opened]
            times = np.array([one.since for one in opened])
            self._child_tracks(tracks, names)
            self._texts(BEGIN, times, tracks, names, [one.attributes for one in opened])

    # --- tracks and names ------------------------------------------------------------------------

    def _tracks(self, chunk: Chunk) -> None:
        moves, strings = chunk.moves, chunk.columns.strings
        created = np.flatnonzero(moves.move == CREATE)
        data = [
            proto.track(task * KINDS + TASK, _PROCESS_TRACK, strings[name] or NAMELESS)
            for task, name in zip(
                moves.task[created].tolist(), moves.name[created].tolist(), strict=True
            )
        ]
        for proc in {*np.unique(moves.proc).tolist(), *(b.proc for b in chunk.columns.batches)}:
            if proc and self._is_new(proc * KINDS + RUN):
                info = self._replay.procs.get(proc, ProcInfo(int(ProcKind.RUN), f"proc {proc}", 0))
                # Two runs may share a thread, one after the other: the proc is what tells them apart.
                name = f"{info.name or 'run'} {proc}"
                data.append(
                    proto.thread_track(proc * KINDS + RUN, self._pid, (1 << 24) + proc, name)
                )
        self._out(b"".join(data))

    def _is_new(self, uuid: int) -> bool:
        if uuid in self._known:
            return False
        self._known.add(uuid)
        return True

    def _names(self, indexes: Integers, strings: list[str]) -> Integers:
        """Ids of texts as names of events."""
        if len(self._named) < len(strings):
            more = np.zeros(len(strings) - len(self._named), np.bool_)
            self._named = np.concatenate((self._named, more))
        if not self._named[indexes].all():
            new = np.unique(indexes[~self._named[indexes]])
            self._named[new] = True
            self._out(proto.interned({_NAMES + i: strings[i] or NAMELESS for i in new.tolist()}))
        return indexes + _NAMES

    # --- packets ---------------------------------------------------------------------------------

    def _slices(
        self, track: Integers, begin: Integers, end: Integers, name: Integers, *flow: Part
    ) -> None:
        """Slices; each begin is followed by its end, and on a track they are in order of time."""
        if len(track):
            self._report.written["slice"] += len(track)
            self._out(
                Records(
                    len(track),
                    *_packet(begin, BEGIN, track, b"\x50", name, *flow),
                    *_packet(end, END, track),
                ).tobytes()
            )

    def _packets(self, time: Integers, kind: int, track: Integers, *more: Part) -> None:
        self._out(Records(len(time), *_packet(time, kind, track, *more)).tobytes())

    # --- tasks -----------------------------------------------------------------------------------

    def _states(self, chunk: Chunk) -> None:
        moves = chunk.moves
        before = moves.before
        ended = np.flatnonzero((before != State.ABSENT) & (moves.time >= moves.since))
        if not len(ended):
            return
        state, since = before[ended], moves.since[ended]
        task, time = moves.task[ended], moves.time[ended]
        reasons = np.clip(moves.reason[ended], 0, len(Reason) - 1)
        names = _STATE_NAMES[state] + np.where(state == State.WAITING, reasons, 0)
        # Of all at the same time, what begins a flow must come before what it leads to.
        self._wakes(chunk)
        woken = (state == State.RUNNABLE) & (moves.waker[ended] != 0)
        flow = Some(woken, _flow(b"\x81\x03", task, since))
        causes = moves.cause[ended]
        told = (state == State.RUNNABLE) & (causes > 0) & (causes < len(WakeCause))
        stacks = self._stacks.of(chunk)[1][ended]
        more: list[Part] = [Some(told, _cause(causes)), flow]
        if stacks.any():
            more.append(_stacks(stacks, chunk.columns.stacks))
        self._slices(task * KINDS + TASK, since, time, names, *more)
        steps = ended[state == State.RUNNING]
        self._slices(
            moves.proc[steps] * KINDS + RUN,
            moves.since[steps],
            moves.time[steps],
            self._names(moves.name[steps], chunk.columns.strings),
        )

    def _wakes(self, chunk: Chunk) -> None:
        moves = chunk.moves
        at = np.flatnonzero((moves.move == RUNNABLE) & (moves.x != 0))
        if not len(at):
            return
        self._report.written["flow"] += len(at)
        self._report.written["instant"] += len(at)
        flow = Raw(_flow(b"\xf9\x02", moves.task[at], moves.time[at]))
        self._packets(
            moves.time[at], INSTANT, moves.x[at] * KINDS + TASK, bytes([0x50, _WAKE]), flow
        )

    # --- what begins and ends in turn ------------------------------------------------------------

    def _pairs(self, chunk: Chunk) -> None:
        columns = chunk.columns
        for row in chunk.losses:
            for pairs in (self._io, self._gc, self._calls):
                pairs.forget(row.proc)
        waits = self._io.take(columns.of(IoWaitStart), columns.of(IoWaitEnd))
        self._lie(waits, RUN, np.full(len(waits), _IO))
        collections = self._gc.take(columns.of(GcStart), columns.of(GcEnd), "generation")
        self._lie(
            collections, GC, _GC_NAMES + np.clip(collections.what, 0, 2), "garbage collection"
        )
        calls = self._calls.take(columns.of(ThreadStart), columns.of(ThreadEnd), "function")
        self._lie(calls, RUN, self._names(calls.what, columns.strings))

    def _lie(self, paired: Paired, kind: int, names: Integers, title: str = "") -> None:
        for proc in np.unique(paired.proc).tolist() if title else ():
            if self._is_new(proc * KINDS + kind):
                self._out(proto.track(proc * KINDS + kind, _PROCESS_TRACK, title))
        self._slices(paired.proc * KINDS + kind, paired.begin, paired.end, names)

    # --- annotations -----------------------------------------------------------------------------

    def _annotations(self, chunk: Chunk) -> None:
        columns = chunk.columns
        begins, ends = columns.of(SpanBegin), columns.of(SpanEnd)
        if len(begins):
            names = [name.encode("utf-8", "replace") or b"span" for name in begins.names("name")]
            tracks = begins.span * KINDS + SPAN
            self._child_tracks(tracks, names)
            ids = _number(b"task", begins.task), _number(b"parent", begins.parent)
            self._texts(BEGIN, begins.time, tracks, names, begins.attributes, *ids)
        self._ends(ends.span * KINDS + SPAN, ends.time)
        begins, ends = columns.of(RegionBegin), columns.of(RegionEnd)
        if len(begins):
            for task in np.unique(begins.task).tolist():
                if self._is_new(task * KINDS + REGIONS):
                    uuid = task * KINDS + REGIONS
                    self._out(proto.track(uuid, task * KINDS + TASK, "regions"))
            names = [name.encode("utf-8", "replace") for name in begins.names("name")]
            tracks = begins.task * KINDS + REGIONS
            self._texts(BEGIN, begins.time, tracks, names, begins.attributes)
        self._ends(ends.task * KINDS + REGIONS, ends.time)
        logs = columns.of(Log)
        if len(logs):
            texts = [str(message).encode("utf-8", "replace") for message in logs.message]
            tracks = np.where(logs.task == 0, _PROCESS_TRACK, logs.task * KINDS + TASK)
            ids = _number(b"level", logs.level), _number(b"span", logs.span)
            self._texts(INSTANT, logs.time, tracks, texts, logs.attributes, *ids)
        self._counters(columns.of(Counter))

    def _notes(self, chunk: Chunk) -> None:
        for notes in notes_in(chunk.columns):
            tasks = notes.tasks
            tracks = np.where(tasks == 0, _PROCESS_TRACK, tasks * KINDS + TASK)
            texts = [text.encode("utf-8", "replace") for text in notes.texts]
            self._texts(INSTANT, notes.table.time, tracks, texts, notes.details)

    def _edges(self, chunk: Chunk) -> None:
        """Nurseries and scopes, begins and ends in order: those of a task lie on one track."""
        edges = self._nests.edges(chunk.columns, chunk.moves)
        if not edges:
            return
        data = [
            proto.track(task * KINDS + NESTS, task * KINDS + TASK, "nurseries and scopes")
            for task in dict.fromkeys(edge.task for edge in edges)
            if self._is_new(task * KINDS + NESTS)
        ]
        self._out(b"".join(data))
        self._report.written["slice"] += sum(edge.begins for edge in edges)
        kinds = Raw(np.array([BEGIN if edge.begins else END for edge in edges], np.uint8))
        names = [proto.text_field(23, edge.kind) if edge.begins else b"" for edge in edges]
        times, tracks = np.array([(edge.time, edge.task * KINDS + NESTS) for edge in edges]).T
        details = [proto.debug_annotations(edge.details) for edge in edges]
        event = Nested(b"\x48", kinds, b"\x58", tracks, names, details)
        packet = Nested(b"\x40", times, b"\x50\x01\x68\x02\x5a", event)
        self._out(Records(len(edges), b"\x0a", packet).tobytes())

    def _arrows(self, arrows: list[Arrow]) -> None:
        known = [arrow for arrow in arrows if arrow.asked >= 0]
        for some, begin in ((known, True), (arrows, False)):
            if not some:
                continue
            tasks, times, asked, by = np.array([(a.task, a.time, a.asked, a.by) for a in some]).T
            flow = _flow(b"\xf9\x02" if begin else b"\x81\x03", tasks + _CANCELS, times)
            at, of = (asked, by) if begin else (times, tasks)
            tracks = np.where(of == 0, _PROCESS_TRACK, of * KINDS + TASK)
            names = [b"cancels" if begin else b"is cancelled"] * len(some)
            details = [{} if begin else arrow.details for arrow in some]
            self._texts(INSTANT, at, tracks, names, details, Some(asked >= 0, flow))
        self._report.written["flow"] += len(known)

    def _child_tracks(self, tracks: Integers, names: list[bytes]) -> None:
        """Tracks of the process, each with a name of its own."""
        descriptor = Nested(b"\x08", tracks, b"\x12", Nested(names), _PARENT)
        shape = Records(len(tracks), b"\x0a", Nested(b"\x50\x01\xe2\x03", descriptor))
        self._out(shape.tobytes())

    def _texts(
        self,
        kind: int,
        time: Integers,
        tracks: Integers,
        names: list[bytes],
        attributes: list[Any],
        *more: Part,
    ) -> None:
        """Packets with a name and attributes of their own."""
        self._report.written["slice" if kind == BEGIN else "instant"] += len(time)
        encoded = [proto.debug_annotations(one) for one in attributes]
        self._packets(time, kind, tracks, b"\xba\x01", Nested(names), *more, encoded)

    def _ends(self, tracks: Integers, time: Integers) -> None:
        if len(tracks):
            self._packets(time, END, tracks)

    def _counters(self, table: Table) -> None:
        if not len(table):
            return
        strings = table.columns.strings
        for name in np.unique(table.name).tolist():
            if self._is_new(name * KINDS + COUNTER):
                uuid = name * KINDS + COUNTER
                self._out(proto.counter_track(uuid, _PROCESS_TRACK, strings[name]))
        self._report.written["sample"] += len(table)
        raw = Raw(np.ascontiguousarray(table.value, "<f8").view(np.uint8).reshape(-1, 8))
        self._packets(table.time, SAMPLE, table.name * KINDS + COUNTER, b"\xe1\x02", raw)

    def _losses(self, chunk: Chunk) -> None:
        for row in chunk.losses:
            count = row.last - row.first + 1
            self._report.lost += count
            uuid = row.proc * KINDS + LOSSES
            if self._is_new(uuid):
                self._out(proto.track(uuid, _PROCESS_TRACK, f"lost events of proc {row.proc}"))
            cause = LossCause(row.cause).name.lower() if row.cause in set(LossCause) else row.cause
            self._out(_loss(uuid, row.start, f"{count} events lost: {cause}", count))
            self._out(_loss(uuid, max(row.start, row.end), "", 0))
            self._report.written["slice"] += 1


def _loss(uuid: int, time: int, name: str, count: int) -> bytes:
    """Begin (with a name) or end of a gap; in a sequence of its own, for the mark makes Perfetto forget its state."""
    event = proto.int_field(9, BEGIN if name else END) + proto.int_field(11, uuid)
    if name:
        event += proto.text_field(23, name) + proto.debug_annotations({"events": count})
    clock = proto.int_field(58, proto.MONOTONIC)
    mark = proto.int_field(42, 1) if name else b""
    return proto.packet(
        proto.int_field(8, time), clock, proto.bytes_field(11, event), mark, sequence=3
    )


def _packet(time: Integers, kind: int, track: Integers, *more: Part) -> tuple[Part, ...]:
    """The parts of packets with an event."""
    event = Nested(bytes([0x48, kind, 0x58]), track, *more)
    return b"\x0a", Nested(b"\x40", time, b"\x50\x01\x68\x02\x5a", event)


def _number(name: bytes, values: Integers) -> Part:
    """A debug annotation."""
    named = b"\x52" + bytes([len(name)]) + name
    return Nested(named + b"\x20", values, tag=b"\x22")


def _cause(causes: Integers) -> NDArray[np.uint8]:
    """A debug annotation with the cause; name and value are interned."""
    field = np.empty((len(causes), 7), np.uint8)
    field[:] = np.frombuffer(bytes([0x22, 5, 0x08, _CAUSE_NAME, 0x88, 0x01, 0]), np.uint8)
    field[:, 6] = causes
    return field


def _stacks(indexes: Integers, stacks: Sequence[Frames]) -> list[bytes]:
    """A debug annotation with the stack, innermost frame first; nothing for index 0."""
    used = {
        i: proto.debug_annotations({"stack": "\n".join(f"{f} ({p}:{n})" for f, p, n in stacks[i])})
        for i in np.unique(indexes).tolist()
        if i
    }
    return [used.get(i, b"") for i in indexes.tolist()]


def _flow(tag: bytes, task: Integers, time: Integers) -> NDArray[np.uint8]:
    """A field with the id of the flow to a task that was made runnable then: both ends of it can tell it."""
    ids = task.astype(np.uint64) * _SPREAD + time.astype(np.uint64)
    field = np.empty((len(ids), len(tag) + 8), np.uint8)
    field[:, : len(tag)] = np.frombuffer(tag, np.uint8)
    field[:, len(tag) :] = ids.astype("<u8").view(np.uint8).reshape(-1, 8)
    return field
