"""`trace_headers`: what to send to another program, so that a span there has one here for its parent."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from tracesvc.format.tracecontext import (
    ATTRIBUTE,
    RANDOM,
    SAMPLED,
    STATE_ATTRIBUTE,
    Parent,
    flags_of,
    header,
    parse,
    span_number,
    state_of,
    trace_number,
)
from tracesvc.recorder.annotations import recording, spans_around

__all__ = ["trace_headers", "traceparent"]


def trace_headers() -> dict[str, str]:
    """The headers (W3C Trace Context) that name the current span: ``traceparent``, and ``tracestate`` where one came.

    ::

        headers = request.headers
        with tracesvc.span(
            "GET /", traceparent=headers.get("traceparent"), tracestate=headers.get("tracestate")
        ):
            await client.get(url, headers=tracesvc.trace_headers())

    A span that was itself given a ``traceparent`` belongs to the trace that this names, with all spans inside it; what
    it was given as ``tracestate`` goes on unchanged.  A span that is not recorded (no tracer runs, or the span was left
    out) passes on what it was given.  Empty: there is no span to name.
    """
    session, given, own = recording.session, None, None
    known = []
    for one in spans_around(copy_context()):
        recorded = session is not None and one.begun_in is session
        came = parse(_given(one, ATTRIBUTE)) is not None
        if recorded:
            known.append(one)
        if came and (recorded or not known):
            given = one
            break
    if known and session is not None:
        parent = None if given is None else parse(_given(given, ATTRIBUTE))
        trace = trace_number(session.id, known[-1].id) if parent is None else parent.trace
        # What has a random number keeps the flag that says so; of numbers of others only they know.
        random = RANDOM if given is None else flags_of(_given(given, ATTRIBUTE)) & RANDOM
        own = header(Parent(trace, span_number(session.id, known[0].id)), SAMPLED | random)
    if own is None and given is None:
        return {}
    said = {ATTRIBUTE: str(_given(given, ATTRIBUTE)).strip(" \t") if own is None else own}
    state = None if given is None else state_of(_given(given, STATE_ATTRIBUTE))
    return said if state is None else said | {STATE_ATTRIBUTE: state}


def traceparent() -> str | None:
    """`trace_headers`' ``traceparent`` alone, for protocols without headers; None: there is no span to name."""
    return trace_headers().get(ATTRIBUTE)


def _given(span: Any, name: str) -> Any:
    return (span._attributes or {}).get(name)
