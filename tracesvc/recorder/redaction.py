"""What must not leave the program: attributes by name, texts by pattern; done before anything is recorded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from tracesvc.recorder.texts import cut_text

__all__ = ["Redaction"]

REMOVED: Final = "[redacted]"
"""stands where a pattern matched"""
LONGEST: Final = 64 << 10
"""bytes of UTF-8 that are searched for patterns; more than any text of an event has"""
SHORTEST_KEY: Final = 16
MAX_NAMES: Final = 10_000
"""names of attributes whose fate is remembered"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    r"""What is taken out of spans, regions and logs, and how; for the option ``redact`` of a tracer.

    ::

        Redaction(drop=["password", "*token*"], hash=["user_id"], key=key, patterns=[r"\b\d{13,19}\b"])

    Names of attributes are compared without regard to case; ``*``, ``?`` and ``[...]`` are as in `fnmatch`.  What a
    name is both to be dropped and hashed for is dropped.  A value that is no plain one is recorded as its repr, and is
    one text: rules for names do not look into it, ``patterns`` do.

    Attributes:
      drop: names of attributes that are left out.
      hash: names of attributes in whose place is recorded ``hash:`` and 16 hexadecimal digits of their text's BLAKE2b
        under ``key``: the same for the same text, so they can be counted and joined, by whoever has the key or not.
      key: 16 to 64 bytes, secret; without it a hash of few possible values would be no secret.
      patterns: regular expressions; what they match in log messages, text attributes and names of spans and regions
        becomes ``[redacted]``.

    Raises:
      ValueError: the key is missing or of the wrong length.
      re.error: a pattern is none.
    """

    drop: Sequence[str] = ()
    hash: Sequence[str] = ()
    key: bytes = field(default=b"", repr=False)
    patterns: Sequence[str | re.Pattern[str]] = ()
    _compiled: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _fates: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("drop", "hash", "patterns"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a list of texts, not one text")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.hash and not self.key:
            raise ValueError("hash needs a key: 16 to 64 secret bytes")
        if self.key and not SHORTEST_KEY <= len(self.key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(f"key must have 16 to 64 bytes, not {len(self.key)}")
        object.__setattr__(self, "_compiled", tuple(re.compile(p) for p in self.patterns))

    def text(self, thing: object) -> object:
        """A message, a name or a value with what the patterns match taken out; without patterns, as it was."""
        if not self._compiled:
            return thing
        text = cut_text(thing, LONGEST)[0]
        for pattern in self._compiled:
            text = pattern.sub(REMOVED, text)
        return text

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What of these attributes may be recorded."""
        kept: dict[str, Any] = {}
        for name, value in attributes.items():
            fate = self._fates.get(name) or self._decide(name)
            if fate == "hash":
                kept[name] = self._hashed(value)
            elif fate == "keep":
                kept[name] = value if type(value) in _NO_TEXT else self.text(value)
        return kept

    def _decide(self, name: str) -> str:
        folded = name.casefold()
        fate = "keep"
        for other, patterns in (("hash", self.hash), ("drop", self.drop)):
            if any(fnmatchcase(folded, pattern.casefold()) for pattern in patterns):
                fate = other
        if len(self._fates) < MAX_NAMES:
            self._fates[name] = fate
        return fate

    def _hashed(self, value: Any) -> str:
        data = value if type(value) is bytes else cut_text(value, LONGEST)[0].encode()
        return f"hash:{hashlib.blake2b(data, key=self.key, digest_size=8).hexdigest()}"


_NO_TEXT: Final = (bool, int, float, type(None))
