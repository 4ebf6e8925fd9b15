"""Traces that commands ask questions of: files, and sessions of a service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracesvc.model.reader import Trace

__all__ = ["kept", "opened"]


@contextmanager
def opened(source: str) -> Iterator[Trace]:
    """A trace that can be read more than once, from a path or ``URL[/SESSION]``.

    What a service has is kept in a temporary file as long as it is needed.
    """
    from tracesvc.cli.progress import watched
    from tracesvc.cli.remote import Service, is_url, split
    from tracesvc.model.reader import read

    if not is_url(source):
        with watched(source) as file:
            yield read(file)
        return
    url, session = split(source)
    service = Service(url)
    with tempfile.TemporaryFile() as kept:
        with service.opened(service.choose(session)) as file:
            shutil.copyfileobj(file, kept)
        kept.seek(0)
        yield read(kept)


@contextmanager
def kept(source: str) -> Iterator[Path]:
    """A file with the trace at a path or ``URL[/SESSION]``; what a service has, as long as it is needed."""
    from tracesvc.cli.remote import Service, is_url, split

    if not is_url(source):
        yield Path(source)
        return
    url, session = split(source)
    service = Service(url)
    with tempfile.NamedTemporaryFile(suffix=".trace") as file:
        with service.opened(service.choose(session)) as body:
            shutil.copyfileobj(body, file)
        file.flush()
        yield Path(file.name)
