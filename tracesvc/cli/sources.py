"""Traces that commands ask questions of: files, and sessions of a service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from tracesvc.model.reader import Trace

__all__ = ["kept", "opened", "streamed"]


@contextmanager
def streamed(source: str) -> Iterator[BinaryIO]:
    """A trace to read once, from front to back: a path, or ``URL[/SESSION]``."""
    from tracesvc.cli.progress import watched
    from tracesvc.cli.remote import Service, is_url, split

    if not is_url(source):
        with watched(source) as file:
            yield file
        return
    url, session = split(source)
    service = Service(url)
    with service.opened(service.choose(session)) as file:
        yield file


@contextmanager
def opened(source: str) -> Iterator[Trace]:
    """A trace that can be read more than once, from a path or ``URL[/SESSION]``.

    What a service has is kept in a temporary file as long as it is needed.
    """
    from tracesvc.cli.remote import is_url
    from tracesvc.model.reader import read

    if not is_url(source):
        with streamed(source) as file:
            yield read(file)
        return
    with tempfile.TemporaryFile() as copy:
        with streamed(source) as file:
            shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield read(copy)


@contextmanager
def kept(source: str) -> Iterator[Path]:
    """A file with the trace at a path or ``URL[/SESSION]``; what a service has, as long as it is needed."""
    from tracesvc.cli.remote import is_url

    if not is_url(source):
        yield Path(source)
        return
    with tempfile.NamedTemporaryFile(suffix=".trace") as file:
        with streamed(source) as body:
            shutil.copyfileobj(body, file)
        file.flush()
        yield Path(file.name)
