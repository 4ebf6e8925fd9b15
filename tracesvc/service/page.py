"""The page: files of ``tracesvc/web``, as they are."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tracesvc.service.problems import ProblemError

__all__ = ["HEADERS", "page"]

WEB: Final = Path(__file__).parent.parent / "web"

HEADERS: Final = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_TYPES: Final = {
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".css": "text/css",
    ".html": "text/html",
}


class _Files:
    """Read once: they belong to the program."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[bytes, str, str]] = {}

    def get(self, name: str) -> tuple[bytes, str, str] | None:
        """(content, its digest, its type)."""
        known = self._read.get(name)
        if known is None:
            path = WEB / name
            # a name is one file in one directory, never a way to another
            if "/" in name or name.startswith(".") or len(name) > 100 or not path.is_file():
                return None
            content = path.read_bytes()
            kind = (
                _TYPES.get(path.suffix)
                or mimetypes.guess_type(name)[0]
                or "application/octet-stream"
            )
            digest = hashlib.sha256(content).hexdigest()[:32]
            known = self._read[name] = content, f'"{digest}"', kind
        return known


_files: Final = _Files()


async def page(request: Request) -> Response:
    """``GET /`` and what it loads."""
    name = request.path_params.get("file") or "index.html"
    found = _files.get(name)
    if found is None:
        raise ProblemError(404, "not-found", "there is no such page")
    content, tag, kind = found
    headers = {**HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    return Response(content, 200, headers, media_type=kind)
