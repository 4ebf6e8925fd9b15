"""A store's disk that misbehaves, and what the tests of stores share."""

import errno
import os
import threading
from pathlib import Path

from tests.streams import joined, name_of
from tracesvc.store.disk import Disk


async def keep(store, frames):
    """Append all of it; the session's name."""
    name = name_of(frames)
    result = await store.append(name, 0, joined(frames))
    assert (result.durable, result.rest, result.problem) == (len(joined(frames)), 0, None)
    return name


def segment(root, name):
    return Path(root) / "sessions" / name / "00000000000000000000.trace"


class GatedDisk(Disk):
    """Counts syncs, and holds them back until `gate` is set."""

    def __init__(self):
        self.gate = threading.Event()
        self.waiting = False
        self.syncs = 0

    def sync(self, fd):
        self.waiting = True
        self.gate.wait()
        self.syncs += 1
        super().sync(fd)


class FailingDisk(Disk):
    """Fails at the nth write or sync; a write leaves half of it behind."""

    def __init__(self):
        self.room: int | None = None
        self.writes = 0
        self.sync_error = 0
        self.cut_error = 0

    def write(self, fd, data, offset):
        self.writes += 1
        if self.room is not None:
            if len(data) > self.room:
                super().write(fd, data[: self.room], offset)
                self.room = 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)
        super().write(fd, data, offset)

    def sync(self, fd):
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(fd)

    def cut(self, fd, size):
        if self.cut_error:
            raise OSError(self.cut_error, os.strerror(self.cut_error))
        super().cut(fd, size)
