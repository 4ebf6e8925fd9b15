"""Faults below the store, in the system calls of a real service: nothing is acknowledged that is not durable.

A library that is preloaded makes them fail, so that the native commit is tested as well as the one in Python.
"""

import contextlib
import errno
import mmap
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.service.helpers import TRACE, problem
from tests.streams import joined, name_of, session

COMPILER = shutil.which("cc") or shutil.which("gcc")
SOURCE = Path(__file__).with_name("faults.c")
WRITE_FAILS, WRITE_SHORT, SYNC_FAILS, RENAME_FAILS, CUT_FAILS, CALLS, HITS = range(7)

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="needs a C compiler: install the Debian package gcc"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    assert COMPILER is not None
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", built, SOURCE, "-ldl"], check=True)
    return built


class Faults:
    """The plan that the library follows."""

    def __init__(self, path):
        path.write_bytes(bytes(4096))
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)

    def __setitem__(self, what, value):
        struct.pack_into("i", self._map, 4 * what, value)

    def __getitem__(self, what):
        return struct.unpack_from("i", self._map, 4 * what)[0]


@contextlib.contextmanager
def serving(root, library, faults, native):
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FAULTS": str(faults.path),
        "FAULTS_BELOW": str(root),
        "TRACESVC_NATIVE": native,
    }
    command = [sys.executable, "-m", "tracesvc", "serve", "--listen", "127.0.0.1:0", "--data", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with httpx2.Client(base_url=url, timeout=30) as client:
                yield client
        finally:
            process.kill()


def post(client, name, offset, data):
    return client.post(
        f"/v1/sessions/{name}/frames", params={"offset": offset}, content=data, headers=TRACE
    )


def stored(client, name):
    return client.get(f"/v1/sessions/{name}/frames").content


@pytest.mark.slow
@pytest.mark.parametrize("native", ["1", "0"])
def test_no_fault_below_makes_it_acknowledge_what_is_not_durable(tmp_path, library, native):
    root, faults = tmp_path / "data", Faults(tmp_path / "plan")
    frames = session(400, batch=10)
    name, stream = name_of(frames), joined(frames)
    at = [frames[i].end for i in range(5, 60, 5)]
    with serving(root, library, faults, native) as client:
        assert post(client, name, 0, stream[: at[0]]).json() == {"offset": at[0]}
        assert faults[CALLS] > 0, "the library is not in its way"

        for error, status, code in (
            (errno.ENOSPC, 507, "no-space"),
            (errno.EIO, 503, "store-broken"),
        ):
            faults[WRITE_FAILS] = error
            content = problem(post(client, name, at[0], stream[at[0] : at[1]]), status, code)
            assert content["offset"] == at[0]
            assert stored(client, name) == stream[: at[0]]
            faults[WRITE_FAILS] = 0

        faults[WRITE_SHORT], faults[HITS] = 1, 0  # what is written in part is written on
        assert post(client, name, at[0], stream[at[0] : at[2]]).json() == {"offset": at[2]}
        assert faults[HITS] > 3
        faults[WRITE_SHORT] = 0
        assert stored(client, name) == stream[: at[2]]

        faults[SYNC_FAILS] = errno.ENOSPC  # nor can the torn end be cut off, for now
        faults[CUT_FAILS] = errno.EIO
        content = problem(post(client, name, at[2], stream[at[2] : at[3]]), 507, "no-space")
        assert content["offset"] == at[2]
        faults[SYNC_FAILS] = 0
        problem(post(client, name, at[2], stream[at[2] : at[3]]), 503, "store-broken")
        faults[CUT_FAILS] = 0
        assert post(client, name, at[2], stream[at[2] : at[3]]).json() == {"offset": at[3]}

        other = session(20)
        assert post(client, name_of(other), 0, joined(other)).status_code == 200
        faults[RENAME_FAILS] = errno.EIO
        problem(client.delete(f"/v1/sessions/{name_of(other)}"), 503, "store-broken")
        faults[RENAME_FAILS] = 0
        assert stored(client, name_of(other)) == joined(other)
        assert client.delete(f"/v1/sessions/{name_of(other)}").status_code == 204

        faults[SYNC_FAILS] = errno.EIO
        content = problem(post(client, name, at[3], stream[at[3] : at[4]]), 503, "store-broken")
        assert content["offset"] == at[3]
        faults[SYNC_FAILS] = 0  # a later sync that succeeds proves nothing
        for piece in (stream[at[3] : at[4]], stream[: at[4]]):
            offset = at[3] if piece == stream[at[3] : at[4]] else 0
            content = problem(post(client, name, offset, piece), 503, "store-broken")
            assert content["offset"] == at[3]
        problem(post(client, name_of(other), 0, joined(other)), 503, "store-broken")
        problem(client.get("/readyz"), 503, "not-writable")
        assert stored(client, name) == stream[: at[3]]
    with serving(root, library, faults, native) as client:
        assert post(client, name, at[3], stream[at[3] :]).json() == {"offset": len(stream)}
        assert stored(client, name) == stream
        assert client.get(f"/v1/sessions/{name}").json()["ledger"]["closed"]
