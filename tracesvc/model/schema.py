"""The schema of a trace as relational tables, column by column; its page in the documentation is made from it.

Times and durations are ns, times by the clock of the trace.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["OF_SESSION", "SESSIONS", "TABLES", "Column"]


class Column(NamedTuple):
    """One column of a table."""

    name: str
    type: str
    """``int``, ``float``, ``text`` or ``bool``"""
    meaning: str


TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "events": (
        Column("time", "int", "when it happened"),
        Column("proc", "int", "its writer"),
        Column("seq", "int", "its number among the events of that writer"),
        Column("type", "text", "see [Events](events.md)"),
        Column("task", "int", "the task it is about"),
        Column("parent", "int", "of a new task: the owner of its nursery; of a span: its parent"),
        Column("nursery", "int", "of a new task"),
        Column("waker", "int", "who woke the task; 0: I/O or a timer"),
        Column("cause", "text", "what woke it, see [Events](events.md#causes-of-waking)"),
        Column("reason", "text", "why the task waits"),
        Column("object", "int", "what it waits for"),
        Column("span", "int", "number of a span"),
        Column("region", "int", "number of a region"),
        Column(
            "name", "text", "of a task, span, region, counter, proc; function of a thread's call"
        ),
        Column("value", "float", "of a counter"),
    ),
    "tasks": (
        Column("task", "int", "its number"),
        Column("name", "text", ""),
        Column("entry", "text", "function and place"),
        Column("proc", "int", "the run it lives in"),
        Column("parent", "int", "owner of its nursery; 0: none, or not known"),
        Column("nursery", "int", "the nursery it is in"),
        Column("created", "int", "NULL: not in the trace"),
        Column("ended", "int", "NULL: it lives, or its end is not in the trace"),
        Column("lost", "bool", "whether its end is among the events that were lost"),
        Column(
            "outcome",
            "text",
            "how it ended, see [Events](events.md#outcomes-of-tasks); NULL: it lives, or nobody looked",
        ),
    ),
    "nurseries": (
        Column("nursery", "int", "its number"),
        Column("task", "int", "that opened it"),
        Column("proc", "int", "the run"),
        Column("start", "int", "NULL: not in the trace"),
        Column("end", "int", "NULL: it is open, or its end is not in the trace"),
        Column("duration", "int", ""),
        Column("children", "int", "tasks that were created in it; NULL likewise"),
        Column("errors", "int", "exceptions that reached it; NULL likewise"),
    ),
    "errors": (
        Column("time", "int", "when it reached the nursery"),
        Column("proc", "int", "the run"),
        Column("task", "int", "that it ended, or that opened the nursery whose body it ended"),
        Column("nursery", "int", "that it reached; 0: it left the run"),
        Column("exception", "text", "its type"),
        Column("message", "text", "what it says"),
    ),
    "cancels": (
        Column("time", "int", "when the scope was cancelled"),
        Column("proc", "int", "the run"),
        Column("scope", "int", "number of the cancel scope"),
        Column("task", "int", "whose scope it is; 0: it was not entered"),
        Column("requester", "int", "task that asked for it; 0: none"),
        Column("source", "text", "see [Events](events.md#sources-of-cancellation)"),
        Column("nursery", "int", "whose scope it is; 0: of none"),
        Column(
            "timeout",
            "int",
            "from when the deadline was set to the deadline; NULL: none, or not known",
        ),
        Column("why", "text", "the reason that the program gave, or the exception"),
    ),
    "cancelled": (
        Column("time", "int", "when `Cancelled` was on its way to the task"),
        Column("proc", "int", "the run"),
        Column("task", "int", "that it reached"),
        Column("scope", "int", "that was cancelled"),
    ),
    "scopes": (
        Column("scope", "int", "number of the cancel scope"),
        Column("task", "int", "that entered it"),
        Column("proc", "int", "the run"),
        Column("start", "int", "NULL: not in the trace"),
        Column("end", "int", "NULL: it is open, or its end is not in the trace"),
        Column("duration", "int", ""),
        Column("timeout", "int", "at its start; NULL: none, or not known"),
        Column("shield", "bool", "at its start"),
        Column("caught", "bool", "whether a cancellation ended here; NULL likewise"),
    ),
    "objects": (
        Column("time", "int", "since when it is watched, or the tracer runs"),
        Column("proc", "int", "the writer"),
        Column("object", "int", "its number, as in `waits`"),
        Column("kind", "text", "reason of who waits for it"),
        Column(
            "name", "text", "what the program calls it, and the beginning of its counters' names"
        ),
    ),
    "steps": (
        Column("task", "int", ""),
        Column("task_name", "text", ""),
        Column("proc", "int", "the run"),
        Column("start", "int", ""),
        Column("end", "int", ""),
        Column("duration", "int", ""),
        Column(
            "ended_by", "text", "`step_yield`, `step_block`, `task_exit`; NULL: not in the trace"
        ),
    ),
    "waits": (
        Column("task", "int", ""),
        Column("task_name", "text", ""),
        Column("proc", "int", "the run"),
        Column("start", "int", ""),
        Column(
            "end", "int", "for one that has not ended: where the trace ends, or events are missing"
        ),
        Column("duration", "int", ""),
        Column("reason", "text", "see [Events](events.md#reasons-for-waiting)"),
        Column("object", "int", "what it waits for; 0: no number"),
        Column("waker", "int", "who ended it; 0: I/O, a timer; NULL: it has not ended"),
        Column("cause", "text", "what ended it; NULL: it has not ended, or the trace does not say"),
        Column("ended", "bool", "whether it has ended"),
    ),
    "runnable": (
        Column("task", "int", ""),
        Column("task_name", "text", ""),
        Column("proc", "int", "the run"),
        Column("start", "int", "when it became runnable"),
        Column("end", "int", "when its step began"),
        Column("duration", "int", "how long it was in the run queue"),
        Column("waker", "int", "who woke it; 0: I/O, a timer, itself, or it is new"),
    ),
    "spans": (
        Column("span", "int", "its number"),
        Column("parent", "int", "0: none"),
        Column("name", "text", ""),
        Column("task", "int", "in which it began"),
        Column("end_task", "int", "in which it ended; NULL: it is open"),
        Column("proc", "int", "where it began; NULL: not in the trace"),
        Column("start", "int", ""),
        Column("end", "int", "NULL: it is open, or its end was lost"),
        Column("duration", "int", ""),
        Column("attributes", "text", "JSON"),
    ),
    "regions": (
        Column("region", "int", "its number"),
        Column("name", "text", ""),
        Column("task", "int", "its task"),
        Column("proc", "int", "where it began; NULL: not in the trace"),
        Column("start", "int", ""),
        Column("end", "int", "NULL: it is open, or its end was lost"),
        Column("duration", "int", ""),
        Column("attributes", "text", "JSON"),
    ),
    "logs": (
        Column("time", "int", ""),
        Column("proc", "int", "its writer"),
        Column("seq", "int", ""),
        Column("task", "int", "0: none"),
        Column("span", "int", "0: none"),
        Column("level", "int", "as in Python's logging"),
        Column("message", "text", ""),
        Column("cut", "int", "characters that were cut off"),
        Column("attributes", "text", "JSON"),
    ),
    "counters": (
        Column("time", "int", ""),
        Column("proc", "int", "its writer"),
        Column("seq", "int", ""),
        Column("name", "text", ""),
        Column("value", "float", ""),
        Column("task", "int", "0: none"),
    ),
    "stacks": (
        Column("time", "int", "when it was looked at"),
        Column("proc", "int", "its writer"),
        Column("task", "int", "whose it is"),
        Column("kind", "text", "`wait`: where it was suspended; `step`: what ran"),
        Column("place", "text", "the innermost frame"),
        Column("stack", "text", "all frames, `function (file:line)`, a line each, innermost first"),
    ),
    "losses": (
        Column("proc", "int", "whose events they are"),
        Column("first", "int", "sequence number; NULL: the trace does not tell which they are"),
        Column("last", "int", "sequence number; NULL likewise"),
        Column("events", "int", "how many"),
        Column("cause", "text", "see [Events](events.md#causes-of-loss)"),
        Column("start", "int", "none of them is older; NULL: not known"),
        Column("end", "int", "none of them is younger; NULL: not known"),
    ),
}
"""table -> its columns, in order"""

OF_SESSION: Final = (
    Column("session", "text", "UUID of the session"),
    Column("source", "text", "what the program is called"),
)
"""where the tables of many sessions are one, each of them begins with these columns"""

SESSIONS: Final = (
    *OF_SESSION,
    Column("host", "text", "NULL: the trace does not say"),
    Column("pid", "int", "NULL likewise"),
    Column("started", "int", "ns since the epoch; NULL: the beginning is damaged"),
    Column("ended", "int", "of the last event, or the end mark; ns since the epoch; NULL likewise"),
    Column("clock", "int", "`time + clock` is a time of this session in ns since the epoch"),
    Column("bytes", "int", "of the trace"),
    Column("events", "int", "that the trace has"),
    Column("lost", "int", "events that are not in it, as far as it tells"),
    Column("gaps", "int", "places where events are missing"),
    Column("whole", "bool", "whether it has its end mark; else the program was killed"),
)
"""what there is of sessions themselves, beside `TABLES`: table ``sessions``"""
