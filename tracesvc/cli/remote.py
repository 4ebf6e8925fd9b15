"""A service as the commands see it; every failure is one line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast
from urllib.parse import quote, urlsplit

import click

__all__ = ["Service", "is_url", "split"]

LONGEST_PAUSE: Final = 5.0
"""seconds between attempts to reach a service, at most"""


def is_url(target: str) -> bool:
    """Whether this is a service rather than a file."""
    return target.startswith(("http://", "https://"))


def split(url: str) -> tuple[str, str | None]:
    """``http://host:7070/SESSION`` as service and session; None where no session is named."""
    parts = urlsplit(url)
    if not parts.netloc:
        raise click.UsageError(f"not the URL of a service: {url}")
    base, _, session = parts.path.rstrip("/").rpartition("/")
    return f"{parts.scheme}://{parts.netloc}{base}", session or None


class Service:
    """The service at ``url``."""

    def __init__(self, url: str) -> None:
        self.url: Final = url.rstrip("/")
        self._tables: Any = None
        """a connection for many small requests"""

    def sessions(self, *, newest: bool = False, **query: str) -> list[dict[str, Any]]:
        """What the service knows of its sessions, the youngest first; all of them, or the ``newest`` only."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        with _client() as client, _one_line(self.url):
            while True:
                parameters = {**query, "limit": "1" if newest else "1000"}
                if cursor is not None:
                    parameters["cursor"] = cursor
                answer = client.get(f"{self.url}/v1/sessions", params=parameters)
                _demand_success(answer, self.url)
                try:
                    page = answer.json()
                    found += page["sessions"]
                    cursor = page["next"]
                except (ValueError, KeyError, TypeError):
                    raise click.ClickException(
                        f"{self.url} does not answer like a tracesvc service"
                    ) from None
                if newest or cursor is None:
                    return found

    def choose(self, session: str | None) -> str:
        """The session named, or else the youngest that is live, or else the youngest."""
        if session is not None:
            return session
        for query in ({"state": "live"}, {}):
            found = self.sessions(newest=True, **query)
            if found:
                return str(found[0]["session"])
        raise click.ClickException(f"{self.url} has no session")

    def wait_for(self, session: str, patience: float) -> None:
        """Until the service has the first of a session; at most ``patience`` seconds."""
        until = time.monotonic() + patience
        path = f"{self.url}/v1/sessions/{quote(session, safe='')}"
        with _client() as client, _one_line(self.url):
            while (answer := client.get(path)).status_code == 404 and time.monotonic() < until:
                time.sleep(0.1)
            _demand_success(answer, self.url)

    def command(self, source: str, what: dict[str, Any]) -> list[dict[str, Any]]:
        """Have programs do something; what each of them says to it."""
        path = f"{self.url}/v1/sources/{quote(source, safe='')}/commands"
        with _client() as client, _one_line(self.url):
            answer = client.post(path, json=what)
            _demand_success(answer, self.url)
            said = answer.json()
            for one in said.get("unreachable", []):
                why = f"programs at replica {one['replica']} may not have heard: {one['error']}"
                click.echo(f"tracesvc: {why}", err=True)
            results: list[dict[str, Any]] = said["results"]
            return results

    def delete(self, session: str) -> None:
        """Have a session that is over deleted."""
        with _client() as client, _one_line(self.url):
            answer = client.delete(f"{self.url}/v1/sessions/{quote(session, safe='')}")
            if answer.status_code != 204:
                _demand_success(answer, self.url)

    def table(self, session: str, table: str, crc32: int, start: int, n: int) -> bytes | None:
        """Bytes of a table's file, if it is there still, and still the one with that checksum."""
        path = f"{self.url}/v1/sessions/{quote(session, safe='')}/parquet/{table}"
        wanted = {"range": f"bytes={start}-{start + n - 1}", "if-match": f'"{crc32:08x}"'}
        if self._tables is None:
            self._tables = _client()
        with _one_line(self.url):
            answer = self._tables.get(path, headers=wanted)
            if answer.status_code in (404, 412):
                return None
            if answer.status_code != 206:
                _demand_success(answer, self.url)
            content: bytes = answer.content
            return content

    @contextmanager
    def opened(self, session: str) -> Iterator[BinaryIO]:
        """What is stored of a session now, as a file to read from front to back."""
        with (
            _client() as client,
            _one_line(self.url),
            client.stream("GET", self._frames(session)) as answer,
        ):
            _demand_success(answer, self.url)
            source: Any = _Body(answer.iter_raw())
            yield cast(BinaryIO, source)

    def follow(self, session: str, done: Callable[[], bool]) -> Iterator[bytes]:
        """What is stored of a session and what comes, until ``done()``; goes on where it was when the line breaks.

        Gives empty bytes where nothing came for now.
        """
        import httpx2

        offset, pause = 0, 0.1
        while not done():
            try:
                with _client() as client:
                    parameters = {"from": str(offset), "follow": "true"}
                    with client.stream("GET", self._frames(session), params=parameters) as answer:
                        if answer.status_code < 500:
                            _demand_success(answer, self.url)
                            for part in answer.iter_raw():
                                offset, pause = offset + len(part), 0.1
                                yield part
            except httpx2.ConnectError as exc:
                if not offset:
                    raise click.ClickException(f"cannot reach {self.url}: {exc}") from None
            except httpx2.HTTPError:
                pass
            if not done():
                yield b""
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _frames(self, session: str) -> str:
        return f"{self.url}/v1/sessions/{quote(session, safe='')}/frames"


class _Body:
    """The body of an answer, with ``read``."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def read(self, _n: int = -1) -> bytes:
        return next(self._parts, b"")


def _client() -> Any:
    try:
        import httpx2
    except ModuleNotFoundError:
        raise click.ClickException(
            "a service is reached with httpx2: pip install 'tracesvc[push]'"
        ) from None
    # A follower may wait for hours; a connection that is not there shows at once.
    token = os.environ.get("TRACESVC_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx2.Client(headers=headers, timeout=httpx2.Timeout(None, connect=5.0))


@contextmanager
def _one_line(url: str) -> Iterator[None]:
    import httpx2

    try:
        yield
    except httpx2.ConnectError as exc:
        raise click.ClickException(f"cannot reach {url}: {exc}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        raise click.ClickException(f"{url}: {str(exc) or type(exc).__name__}") from None


def _demand_success(answer: Any, url: str) -> None:
    if answer.status_code == 200:
        return
    answer.read()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"status {answer.status_code}"
    raise click.ClickException(f"{url}: {detail}")
