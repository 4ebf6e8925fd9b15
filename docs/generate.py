"""Writes ``events.md``, ``states.svg``, ``tables.md`` and the page's ``vocabulary.js`` from the code.

``python -m docs.generate``, in the root of the repository.

A test compares the committed pages with what this makes, so they cannot say anything else than the code does.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from docs import diagram
from tracesvc.events import (
    EVENTS,
    CancelSource,
    Event,
    Field,
    FrameKind,
    LossCause,
    Outcome,
    ProcKind,
    Reason,
    Storage,
    WakeCause,
)
from tracesvc.model import states
from tracesvc.model.schema import SESSIONS, TABLES

__all__ = [
    "DIAGRAM",
    "PAGE",
    "TABLES_PAGE",
    "VOCABULARY",
    "diagram",
    "page",
    "tables_page",
    "vocabulary",
]

PAGE: Final = Path(__file__).with_name("events.md")
DIAGRAM: Final = Path(__file__).with_name("states.svg")
TABLES_PAGE: Final = Path(__file__).with_name("tables.md")
VOCABULARY: Final = Path(__file__).parent.parent / "tracesvc" / "web" / "vocabulary.js"

HOLDS: Final = {
    "attributes": "map of text to nil, bool, number, text or bytes; nil: none",
    "cancel source": "see [sources of cancellation](#sources-of-cancellation)",
    "caught": "1: the cancellation ended here; 0: there was none, or it went on",
    "children": "tasks that were created in the nursery",
    "collected": "objects",
    "cause": "see [causes](#causes-of-waking)",
    "errors": "exceptions that reached the nursery, cancellations not counted; they leave it as a group",
    "cut": "characters that were cut off",
    "generation": "0 to 2",
    "level": "as in Python's `logging`: 10 debug, 20 info, 30 warning, 40 error, 50 critical",
    "name": "at most 1 KiB",
    "ns": "ns",
    "nursery": "number of a nursery; 0: not known",
    "object": "what is waited for, see [reasons](#reasons-for-waiting); 0: no number",
    "outcome": "see [outcomes](#outcomes-of-tasks)",
    "parent": "task that owns the nursery; 0: none, or not known",
    "parent span": "span that it is part of; 0: none",
    "proc kind": "see [kinds of proc](#kinds-of-proc)",
    "reason": "see [reasons](#reasons-for-waiting)",
    "region": "number of the region",
    "overhead level": "0: everything is recorded; more: less is",
    "requester": "task that asked for it; 0: none, as where a deadline passes between steps",
    "scope": "number of a cancel scope; 0: not known",
    "shield": "1: it keeps out cancellation from around it; 0: it does not",
    "span": "number of the span; 0: none",
    "stack": "(function, file, line) of each frame, innermost first, at most 64; none: empty",
    "task": "number of the task; 0: none",
    "text": "at most 16 KiB",
    "thread": "number that the operating system has for it",
    "timeout": "ns from when the deadline was set to the deadline, by the clock of the run; -1: none, or not known",
    "value": "finite",
    "waker": "task that did it; 0: I/O, a timer, or something outside the run",
}
"""what a field holds, by its name if its role says too little"""

HEAD: Final = """\
<!-- made by docs/generate.py from tracesvc/events.py and tracesvc/model/states.py -->
# Events

Everything a trace can say. How it is written down is in [the format](format.md). Times are integer nanoseconds of
`CLOCK_MONOTONIC`. Every event has its time, the proc that wrote it and its sequence number among the events of that
proc; the tables say what it has besides. Numbers of tasks, spans and regions begin at 1 and are not used again within a
process.
"""
LIFE: Final = """\
Seven event types move a task from state to state, and all of them come from the proc of its run. What is not drawn here
does not happen; `tracesvc verify` reports it.
"""
RULES: Final = """\
Besides: in a run at most one task is `RUNNING`. A waker is the task that runs, or 0 where none does. The run loop waits
for I/O only while every task of the run is `WAITING`.
"""
SOURCES: Final = """\
A scope is cancelled once. That a cancellation from outside passes through a nursery on its way is not recorded, and
neither is the timer of a `trio.sleep`. `why` is the reason that the program gave (trio 0.31 and later), or the
exception.
"""
NUMBERS: Final = """\
`reason` and `object` of `step_block` and `task_waiting`. An object that is not a file descriptor has a number of its
own, which is not used again within the process.
"""


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "## Event types\n",
        _table(("", "type", "fields", "meaning"), map(_event, EVENTS.values())),
        "## Fields\n",
        _table(("field", "stored as", "holds", "of"), _fields()),
        "## Life of a task\n",
        LIFE,
        "![the states of a task, and what moves it from one to another](states.svg)\n",
        _table(("state", "meaning", "event", "state after it"), _moves()),
        RULES,
        "## Reasons for waiting\n",
        NUMBERS,
        _table(
            ("", "reason", "waits for", "object"),
            ((str(r.value), _code(r.name.lower()), r.meaning, r.identity) for r in Reason),
        ),
        "## Causes of waking\n",
        _table(
            ("", "cause", "what woke the task"),
            ((str(c.value), _code(c.name.lower()), c.meaning) for c in WakeCause),
        ),
        "## Outcomes of tasks\n",
        _table(
            ("", "outcome", "how the task ended"),
            ((str(o.value), _code(o.name.lower()), o.meaning) for o in Outcome),
        ),
        "## Sources of cancellation\n",
        SOURCES,
        _table(
            ("", "source", "what had the scope cancelled"),
            ((str(c.value), _code(c.name.lower()), c.meaning) for c in CancelSource),
        ),
        "## Kinds of proc\n",
        _table(("", "kind", "meaning"), _proc_kinds()),
        "## Kinds of frame\n",
        _table(
            ("", "kind", "carries"), ((str(k.value), _code(k.name), k.meaning) for k in FrameKind)
        ),
        "## Causes of loss\n",
        _table(
            ("", "cause", "meaning"),
            ((str(c.value), _code(c.name.lower()), c.meaning) for c in LossCause),
        ),
    ]
    return "\n".join(parts)


TABLES_HEAD: Final = """\
<!-- made by docs/generate.py from tracesvc/model/schema.py -->
# Tables

What `tracesvc query` asks, and what columnar exports contain. Times are ns of the trace's clock, durations ns. The
numbers of tasks, spans and regions are not used again within a process; 0 means none. `int` is a 64-bit integer,
`float` a double.
The SQL that the examples use is plain: it runs on any engine that has the tables.

Where many sessions are asked at once ([History](history.md)), each table begins with two more columns, `session` and
`source`, and there is a table `sessions`.
"""


def tables_page() -> str:
    """The page of the tables."""
    parts = [TABLES_HEAD]
    for name, columns in {**TABLES, "sessions": SESSIONS}.items():
        rows = ((_code(c.name), c.type, c.meaning) for c in columns)
        parts += [f"## {name}\n", _table(("column", "type", "meaning"), rows)]
    return "\n".join(parts)


def _moves() -> Iterator[tuple[str, ...]]:
    """The rows of the table of states."""
    for state, row in states.TABLE.items():
        name, meaning = _code(state.name), states.MEANING[state]
        for event, after in row.items():
            yield name, meaning, _code(event), _code(after.name)
            name = meaning = ""
        if not row:
            yield name, meaning, "none", ""


def _event(event: type[Event]) -> tuple[str, ...]:
    meaning = " ".join(inspect.cleandoc(event.__doc__ or "").replace("``", "`").split())
    fields = ", ".join(_code(field.name) for field in event.fields)
    return str(event.number), _code(event.type), fields, meaning


def _fields() -> Iterator[tuple[str, ...]]:
    """Fields of one name that hold the same, with the types that have them."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for event in EVENTS.values():
        for field in event.fields:
            row = _code(field.name), field.storage.value, _holds(field)
            found.setdefault(row, []).append(_code(event.type))
    for row, events in sorted(found.items()):
        yield *row, ", ".join(events)


def _holds(field: Field) -> str:
    if field.storage is Storage.STRING:
        return HOLDS["name"]
    return HOLDS[field.name if field.role == "number" else field.role]


def _proc_kinds() -> Iterator[tuple[str, ...]]:
    """The members of the enumeration with the texts that stand below them in its source."""
    lines = [line.strip() for line in inspect.getsource(ProcKind).splitlines()]
    for kind in ProcKind:
        below = lines[lines.index(f"{kind.name} = {kind.value}") + 1]
        yield str(kind.value), _code(kind.name.lower()), below.strip('"').replace("``", "`")


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def vocabulary() -> str:
    """The page's own copy of the vocabulary, for what has no trace's header to go by."""
    names = {
        "EVENTS": [
            [e.number, e.type, [[f.name, f.storage.value] for f in e.fields]]
            for e in EVENTS.values()
        ],
        "REASONS": _members(Reason),
        "CAUSES": _members(WakeCause),
        "LOSSES": _members(LossCause),
        "PROC_KINDS": [kind.name.lower() for kind in ProcKind],
    }
    parts = ["// made by docs/generate.py from tracesvc/events.py\n"]
    for name, value in names.items():
        rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value)
        parts.append(f"export const {name} = [\n{rows},\n];\n")
    return "\n".join(parts)


def _members(members: Iterable[Any]) -> list[Any]:
    """By number: name, meaning and what they identify."""
    known = {int(m): m for m in members}
    return [
        {
            "name": known[i].name.lower(),
            "meaning": known[i].meaning,
            **({"identity": known[i].identity} if hasattr(known[i], "identity") else {}),
        }
        if i in known
        else None
        for i in range(max(known) + 1)
    ]


if __name__ == "__main__":
    VOCABULARY.write_text(vocabulary(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    DIAGRAM.write_text(diagram.draw(), encoding="utf-8")
    TABLES_PAGE.write_text(tables_page(), encoding="utf-8")
