"""Room that is reserved behind the files that grow."""

import os

from tests.store.helpers import segment
from tests.streams import Maker, joined
from tracesvc.store import FileStore, _commit
from tracesvc.store.disk import NativeDisk, best_disk, has_room_behind
from tracesvc.store.segments import RESERVE


class WatchedDisk(NativeDisk):
    """Remembers what room it was asked for."""

    def __init__(self):
        self.asked = []

    def commit(self, writes):
        self.asked += [(write.offset, write.reserve) for write in writes]
        return super().commit(writes)


def long_session():
    made = Maker(text="all is well " * 100)
    frames = [*made.start()]
    while frames[-1].end < RESERVE // 2:
        frames += made.events(1000)
    return made, frames


async def fill(store, made, frames):
    for frame in frames:
        result = await store.append(made.session, frame.offset, frame.data)
        assert result.durable == frame.end


async def test_a_file_that_grows_is_given_room_a_few_times_only(tmp_path):
    made, frames = long_session()
    disk = WatchedDisk()
    async with FileStore.open(tmp_path, disk) as store:
        await fill(store, made, frames)
        assert [at for at, room in disk.asked if room] == [
            next(frame.offset for frame in frames if frame.end > RESERVE // 4)
        ]
        assert segment(tmp_path, made.session).read_bytes() == joined(frames)


async def test_what_is_reserved_is_given_back(tmp_path):
    made, frames = long_session()
    path = segment(tmp_path, made.session)
    async with FileStore.open(tmp_path, best_disk()) as store:
        await fill(store, made, frames)
    assert not has_room_behind(path.stat())
    assert path.read_bytes() == joined(frames)


async def test_what_a_killed_service_reserved_is_given_back_at_the_next_start(tmp_path):
    made, frames = long_session()
    path = segment(tmp_path, made.session)
    async with FileStore.open(tmp_path) as store:
        await fill(store, made, frames)
    # as a kill leaves it: reserved, and not closed
    size = path.stat().st_size
    fd = os.open(path, os.O_RDWR)
    assert _commit.commit([(fd, size - 1, [os.pread(fd, 1, size - 1)], RESERVE)]) == [(0, False)]
    os.close(fd)
    assert has_room_behind(path.stat())
    async with FileStore.open(tmp_path) as store:
        assert (await store.info(made.session)).bytes == size
    assert not has_room_behind(path.stat())
    assert path.read_bytes() == joined(frames)
