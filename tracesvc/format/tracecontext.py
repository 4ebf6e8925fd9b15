"""Numbers of spans across programs, as the W3C has them (Trace Context, version 00, levels 1 and 2).

They are made of the session and the span's number in it, so nothing need be kept for them: a program that sends one and
an export of its trace come to the same.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

__all__ = [
    "ATTRIBUTE",
    "RANDOM",
    "SAMPLED",
    "STATE_ATTRIBUTE",
    "Parent",
    "flags_of",
    "header",
    "parse",
    "span_number",
    "state_of",
    "trace_number",
]

ATTRIBUTE: Final = "traceparent"
"""of a span: what came with the request that it answers"""
STATE_ATTRIBUTE: Final = "tracestate"
"""of a span: what others want to be passed on with that"""
SAMPLED: Final = 0x01
"""flag: whoever sends it has recorded the span"""
RANDOM: Final = 0x02
"""flag: the last seven bytes of the number of the trace are random, so others may sample by them (level 2)"""
MAX_MEMBERS: Final = 32
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(r"([a-z0-9][a-z0-9_\-*/@]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


class Parent(NamedTuple):
    """A span in another program."""

    trace: bytes
    """16 of them"""
    span: bytes
    """8 of them"""


def _found(text: object) -> re.Match[str] | None:
    found = _FORM.fullmatch(text.strip(" \t")) if isinstance(text, str) else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    return found if found[2].strip("0") and found[3].strip("0") else None


def parse(text: object) -> Parent | None:
    """What a ``traceparent`` says; None: it says nothing, or not by the rules."""
    found = _found(text)
    return None if found is None else Parent(bytes.fromhex(found[2]), bytes.fromhex(found[3]))


def flags_of(text: object) -> int:
    """The flags of a ``traceparent`` that are known; 0 where it is none."""
    found = _found(text)
    return 0 if found is None else int(found[4], 16) & (SAMPLED | RANDOM)


def state_of(text: object) -> str | None:
    """A ``tracestate`` that may be passed on as it is; None: it says nothing, or not by the rules."""
    if not isinstance(text, str):
        return None
    members = [member.strip(" \t") for member in text.split(",")]
    found = [_MEMBER.fullmatch(member) for member in members if member]
    keys = [match[1] for match in found if match is not None]
    if not keys or len(keys) < len(found) or len(keys) > MAX_MEMBERS or len(set(keys)) < len(keys):
        return None
    return text.strip(" \t")


def header(parent: Parent, flags: int = SAMPLED) -> str:
    """The ``traceparent`` that names a span, by default as one that is recorded."""
    return f"00-{parent.trace.hex()}-{parent.span.hex()}-{flags:02x}"


def trace_number(session: str, root: int) -> bytes:
    """16 bytes that name the trace whose first span has this number; as random as the session's name is."""
    return _number(session, f"root {root}", 16)


def span_number(session: str, span: int) -> bytes:
    """8 bytes that name a span."""
    return _number(session, f"span {span}", 8)


def _number(session: str, what: str, size: int) -> bytes:
    return hashlib.blake2b(f"{session} {what}".encode(), digest_size=size).digest()
