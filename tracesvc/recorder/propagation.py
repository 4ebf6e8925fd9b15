"""`traceparent`: what to send to another program, so that a span there has one here for its parent."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from tracesvc.format.tracecontext import (
    ATTRIBUTE,
    Parent,
    header,
    parse,
    span_number,
    trace_number,
)
from tracesvc.recorder.annotations import recording, spans_around

__all__ = ["traceparent"]


def traceparent() -> str | None:
    """The header (W3C Trace Context) that names the current span; None: there is none, or nothing is recorded.

    ::

        with tracesvc.span("GET /", traceparent=request.headers.get("traceparent")):
            headers = {"traceparent": tracesvc.traceparent()}

    A span that was itself given a ``traceparent`` belongs to the trace that this names, with all spans inside it.
    """
    session = recording.session
    if session is None:
        return None
    known = [one for one in spans_around(copy_context()) if one.begun_in is session]
    if not known:
        return None
    given = (parse(_attributes(one).get(ATTRIBUTE)) for one in known)
    parent = next((found for found in given if found is not None), None)
    trace = trace_number(session.id, known[-1].id) if parent is None else parent.trace
    return header(Parent(trace, span_number(session.id, known[0].id)))


def _attributes(span: Any) -> dict[str, Any]:
    return span._attributes or {}
