"""Who may do what: tokens, of which only the digest is kept.

A token is ``tsv_ID_SECRET``.  The secret has 256 random bits, so SHA-256 alone protects it at rest: there is nothing to
guess, and what is slow on purpose (scrypt and its kind) would only be slow at every request.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Scope", "Token", "TokenBook", "TokenError", "TokenFile", "make_token", "parse_tokens"]

_FORM: Final = re.compile(r"tsv_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


class TokenError(ValueError):
    """Tokens that cannot be read or made; the message says why."""


class Scope(enum.StrEnum):
    """What a token allows."""

    INGEST = "ingest"
    """push sessions, and wait for commands"""
    READ = "read"
    """list sessions, read and follow them, ask questions"""
    CONTROL = "control"
    """command programs"""
    ADMIN = "admin"
    """everything: delete, metrics and debugging of the service too"""


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of one."""

    id: str
    digest: str
    """SHA-256 of its text, hexadecimal"""
    scopes: frozenset[Scope]
    prefix: str = ""
    """only sources whose name begins with it; empty: all"""
    created: int = 0
    """seconds since the epoch"""
    expires: int | None = None
    """likewise; None: never"""
    note: str = ""

    def expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "scopes": sorted(self.scopes)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Token:
        """What `as_dict` gave.

        Raises:
          TokenError: it is none.
        """
        try:
            scopes = frozenset(map(Scope, found["scopes"]))
            token = cls(**{**found, "scopes": scopes})
        except (KeyError, TypeError, ValueError) as exc:
            raise TokenError(f"not a token's entry: {exc}") from exc
        return token


def make_token(
    scopes: Iterable[Scope],
    *,
    prefix: str = "",
    expires: int | None = None,
    note: str = "",
    now: float | None = None,
) -> tuple[str, Token]:
    """A new one: its text, to be shown once, and what is kept."""
    name = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    text = f"tsv_{name}_{secrets.token_urlsafe(32)}"
    created = int(time.time() if now is None else now)
    return text, Token(name, _digest(text), frozenset(scopes), prefix, created, expires, note)


def parse_tokens(text: str) -> list[Token]:
    """Those of an environment variable: ``SCOPE[,SCOPE][@PREFIX] TOKEN``, one a line or between semicolons.

    Raises:
      TokenError: an entry is none of these.
    """
    found = []
    for i, entry in enumerate(filter(None, map(str.strip, re.split(r"[;\n]", text)))):
        words = entry.split()
        form = _FORM.fullmatch(words[-1])
        if len(words) != 2 or form is None:
            raise TokenError(f"entry {i + 1}: it is to be SCOPE[,SCOPE][@PREFIX] TOKEN")
        scopes, _, prefix = words[0].partition("@")
        try:
            allowed = frozenset(map(Scope, scopes.split(",")))
        except ValueError as exc:
            raise TokenError(f"entry {i + 1}: {exc}; scopes are {', '.join(Scope)}") from None
        found.append(Token(form[1], _digest(words[-1]), allowed, prefix, note="environment"))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TokenBook:
    """The tokens there are."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens: Final = {token.id: token for token in tokens}

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Any:
        return iter(self._tokens.values())

    def find(self, text: str, now: float) -> Token | None:
        """The token whose text this is, if it holds at ``now``.

        The text is compared in constant time; that its number is looked up first tells nothing secret.
        """
        form = _FORM.fullmatch(text)
        token = None if form is None else self._tokens.get(form[1])
        digest = _digest(text)
        if token is None or not hmac.compare_digest(token.digest, digest) or token.expired(now):
            return None
        return token


class TokenFile:
    """The tokens of a file, which may change under way."""

    LOOK_EVERY: Final = 1.0
    """seconds"""

    def __init__(self, path: Path, more: Iterable[Token] = ()) -> None:
        """``more``: tokens from elsewhere."""
        self.path: Final = path
        self._more: Final = list(more)
        self._seen: tuple[int, int] | None = None
        self._looked = -1e9
        self.book = TokenBook(self._more)

    def look(self, now: float) -> TokenBook:
        """The tokens, looked at again if the last look was a second ago (``now``: any clock).

        Raises:
          TokenError: the file is there and cannot be read; `book` stays as it was.
        """
        if now - self._looked < self.LOOK_EVERY:
            return self.book
        self._looked = now
        try:
            found = self.path.stat()
        except FileNotFoundError:
            if self._seen is not None:
                self._seen, self.book = None, TokenBook(self._more)
            return self.book
        except OSError as exc:
            raise TokenError(f"{self.path}: {exc.strerror}") from exc
        seen = found.st_mtime_ns, found.st_size
        if seen != self._seen:
            self.book = TokenBook([*self.read(), *self._more])
            self._seen = seen
        return self.book

    def read(self) -> list[Token]:
        """What is in the file now; nothing, where there is none.

        Raises:
          TokenError: it cannot be read.
        """
        try:
            rows = json.loads(self.path.read_text())
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise TokenError(f"{self.path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise TokenError(f"{self.path} is no list of tokens: {exc}") from exc
        if not isinstance(rows, list):
            raise TokenError(f"{self.path} is no list of tokens")
        return [Token.from_dict(row) for row in rows]

    def write(self, tokens: Iterable[Token]) -> None:
        """Replace what is in the file, durably; only its owner can read it.

        Raises:
          TokenError: it cannot be written.
        """
        text = json.dumps([token.as_dict() for token in tokens], indent=1)
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            self._looked = -1e9
        except OSError as exc:
            part.unlink(missing_ok=True)
            raise TokenError(f"{self.path}: {exc.strerror}") from exc
