"""A part of a session as a session of its own: told apart from the whole wherever both come together."""

from __future__ import annotations

from typing import Any

from tracesvc.events import FrameKind
from tracesvc.format.frames import Frame, encode_frame
from tracesvc.format.records import Generation, Header

__all__ = ["apart"]


def apart(frame: Frame, session: str, options: dict[str, Any]) -> Frame:
    """The frame as it stands in the session ``session``, whose header has these options beside the others.

    Raises:
      FormatError: it is no good header or generation.
    """
    record: Header | Generation
    if frame.kind == FrameKind.HEADER:
        header = Header.unpack(frame.body())
        record = header.__replace__(session=session, options={**header.options, **options})
    elif frame.kind == FrameKind.GENERATION:
        record = Generation.unpack(frame.body()).__replace__(session=session)
    else:
        return frame
    return Frame(frame.kind, frame.number, encode_frame(record.kind, frame.number, record.pack()))
