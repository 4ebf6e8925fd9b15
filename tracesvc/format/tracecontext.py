"""Numbers of spans across programs, as the W3C has them (Trace Context, version 00).

They are made of the session and the span's number in it, so nothing need be kept for them: a program that sends one and
an export of its trace come to the same.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

__all__ = ["ATTRIBUTE", "Parent", "header", "parse", "span_number", "trace_number"]

ATTRIBUTE: Final = "traceparent"
"""of a span: what came with the request that it answers"""
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent(NamedTuple):
    """A span in another program."""

    trace: bytes
    """16 of them"""
    span: bytes
    """8 of them"""


def parse(text: object) -> Parent | None:
    """What a ``traceparent`` says; None: it says nothing, or not by the rules."""
    found = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    parent = Parent(bytes.fromhex(found[2]), bytes.fromhex(found[3]))
    return parent if any(parent.trace) and any(parent.span) else None


def header(parent: Parent) -> str:
    """The ``traceparent`` that names a span as one that is recorded."""
    return f"00-{parent.trace.hex()}-{parent.span.hex()}-01"


def trace_number(session: str, root: int) -> bytes:
    """16 bytes that name the trace whose first span has this number."""
    return _number(session, f"root {root}", 16)


def span_number(session: str, span: int) -> bytes:
    """8 bytes that name a span."""
    return _number(session, f"span {span}", 8)


def _number(session: str, what: str, size: int) -> bytes:
    return hashlib.blake2b(f"{session} {what}".encode(), digest_size=size).digest()
