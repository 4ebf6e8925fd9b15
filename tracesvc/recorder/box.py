"""The black box: what a program recorded last, where it outlives the program. The layout is in `tracesvc.format.box`.

It is a file of fixed size that is mapped into memory, by default on a file system that is memory itself.  All of its
space is reserved when it is made, so a full disk is an error then and never a SIGBUS.  Every record is copied into its
journal the moment it is stored, natively or by `Box.keep`, and every frame that the reader makes into its ring.  The
kernel keeps what was written, whatever becomes of the process; the lock on the file goes with it, and so tells that.

A forked child has no box: the natively written one is gone before any of its code runs, the other one asks for its pid.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import re
import shutil
import struct
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from tracesvc.events import FrameKind
from tracesvc.format.box import (
    ACCOUNTS,
    HEADER_AT,
    JOURNAL_AT,
    MAGIC,
    SLOT,
    Layout,
    offset_of,
    pack_value,
)
from tracesvc.format.frames import Frame, encode_frame
from tracesvc.recorder.boxes import FILE, prepare
from tracesvc.recorder.clock import wall
from tracesvc.recorder.errors import BlackBoxError
from tracesvc.recorder.native import native

__all__ = ["SPARE_BUFFERS", "Box"]

SPARE_BUFFERS: Final = 64
"""buffers that the journal has room for beside those that may wait for the reader: those that are being filled"""
GENERATIONS: Final = 4
"""generations that are to fit in the ring at least"""


class Box:
    """The box of one session, open for writing.

    Raises:
      BlackBoxError: it cannot be made: there is no room for it, or the directory is not one of ours.
    """

    def __init__(
        self, directory: Path, name: str, session: str, size: int, records: int, natively: bool
    ) -> None:
        """``records`` is how many the journal is to have, ``natively`` who writes it."""
        layout = Layout.of(size, records)
        self._pid: Final = os.getpid()
        self._layout: Final = layout
        self.generation_bytes: Final = layout.ring_size // GENERATIONS
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:64] or "program"
        self.path: Final = directory / f"{safe}-{self._pid}-{session[:8]}"
        self._at = 0
        self._text_end = 8
        self._ring_start = self._ring_end = 0
        self._generations: Final[deque[int]] = deque()
        """where each of those in the ring begins"""
        self._skipping = True
        """what comes belongs to a generation that does not fit"""
        self._native: Final = natively and native is not None
        try:
            prepare(directory)
            self._fd, self._map = self._make()
        except OSError as exc:
            shutil.rmtree(self.path, ignore_errors=True)
            raise BlackBoxError(
                f"no black box in {directory}: {exc.strerror or exc}; it takes {layout.size:,} bytes: "
                "make room there, choose another directory or a smaller black_box_bytes"
            ) from exc
        for word, number in layout.words(self._pid, wall()).items():
            self._set(word, number)
        self._map[: len(MAGIC)] = MAGIC
        if self._native:
            assert native is not None
            native.open_box(self._map, self._fd)
        _open.add(self)

    def _make(self) -> tuple[int, mmap.mmap]:
        self.path.mkdir(mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self.path / FILE, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(fd, 0, self._layout.size)
            return fd, mmap.mmap(fd, self._layout.size)
        except BaseException:
            os.close(fd)
            raise

    def _set(self, word: str, number: int) -> None:
        struct.pack_into("<Q", self._map, offset_of(word), number)

    # --- frames ----------------------------------------------------------------------------------

    def header(self, frame: Frame) -> None:
        """The session's first frame; with it the box is one."""
        size = len(frame.data)
        if size > JOURNAL_AT - HEADER_AT:
            raise BlackBoxError(
                f"the header of the trace has {size:,} bytes, too many for a black box"
            )
        self._map[HEADER_AT : HEADER_AT + size] = frame.data
        self._set("header_size", size)

    def write(self, frames: Iterable[Frame], accounts: list[tuple[int, int, int]]) -> None:
        """Frames of the stream, in order, and up to where they have each proc; all of it is there, or none."""
        if self._pid != os.getpid() or self._map.closed:
            return
        for frame in frames:
            if frame.kind == FrameKind.HEADER:
                continue
            if frame.kind == FrameKind.GENERATION:
                self._generations.append(self._ring_end)
                self._skipping = False
            self._put(frame.data)
        if accounts:
            self._put(encode_frame(ACCOUNTS, 0, accounts))  # type: ignore[arg-type]
        self._set("ring_end", self._ring_end)

    def _put(self, data: bytes) -> None:
        if self._skipping:
            return
        size = self._layout.ring_size
        while self._ring_end + len(data) - self._ring_start > size:
            if self._generations:
                self._generations.popleft()
            if not self._generations:  # it does not fit by itself
                self._ring_start = self._ring_end
                self._skipping = True
                self._set("ring_start", self._ring_start)
                self._set("ring_end", self._ring_end)
                return
            self._ring_start = self._generations[0]
            # before anything there is overwritten; the end must not lie before it meanwhile
            if self._ring_start > self._committed:
                self._set("ring_end", self._ring_start)
            self._set("ring_start", self._ring_start)
        at = self._layout.size - size + self._ring_end % size
        first = min(len(data), self._layout.size - at)
        self._map[at : at + first] = data[:first]
        if first < len(data):
            start = self._layout.size - size
            self._map[start : start + len(data) - first] = data[first:]
        self._ring_end += len(data)

    @property
    def _committed(self) -> int:
        end: int = struct.unpack_from("<Q", self._map, offset_of("ring_end"))[0]
        return end

    # --- records ---------------------------------------------------------------------------------

    def keeper(self, records: Any, proc: int) -> Callable[[tuple[Any, ...]], None] | None:
        """For records that are not kept natively: what to call in the place of their ``extend``."""
        if self._native:
            records.proc = proc
            return None
        # Where two threads are at it, the numbers may be the wrong way round: they are those of one second's events.
        extend, keep, number = records.extend, self.keep, itertools.count().__next__

        def kept(record: tuple[Any, ...]) -> None:
            extend(record)
            keep(proc, number(), record)

        return kept

    def keep(self, proc: int, n: int, record: tuple[Any, ...]) -> None:
        """Copy a record; the twin of ``box_keep`` in csrc/box.c."""
        if self._pid != os.getpid() or self._map.closed:
            return
        values, tags = [0] * 5, [0] * 5
        for k, value in enumerate(record[2:]):
            if type(value) is float:
                tags[k], values[k] = 1, struct.unpack("<Q", struct.pack("<d", value))[0]
            elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
                values[k] = value & (1 << 64) - 1
            else:
                tags[k], values[k] = 2, self._put_text(getattr(value, "frames", value))
        at, self._at = self._at, (self._at + 1) % self._layout.slots
        at = JOURNAL_AT + at * SLOT.size
        struct.pack_into("<Q", self._map, at, 0)
        SLOT.pack_into(self._map, at, 0, record[1], *values, record[0], *tags, 0, 2 in tags)
        struct.pack_into("<Q", self._map, at, (proc << 40 | n) + 1)

    def _put_text(self, value: object) -> int:
        data = pack_value(value)
        size = self._layout.text_size
        if len(data) > size // 4:
            return 0
        place = self._text_end
        if place % size + len(data) > size:  # not across the end
            place += size - place % size
        self._text_end = (place + len(data) + 7) & ~7
        self._set("text_end", self._text_end)  # what lay there before is none any more
        at = JOURNAL_AT + self._layout.slots * SLOT.size + place % size
        self._map[at : at + len(data)] = data
        return place

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """The trace is out: the box goes."""
        if self._pid != os.getpid():
            return
        self._detach()
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)

    def _detach(self) -> None:
        _open.discard(self)
        if self._native:
            assert native is not None
            native.close_box()
        self._map.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of what is the parent's."""
        if not self._native:  # else it is closed already
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._detach()


_open: Final[weakref.WeakSet[Box]] = weakref.WeakSet()


def _in_child() -> None:
    for box in list(_open):
        box.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
