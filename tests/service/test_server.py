"""The service as a process, and what it does when it is told to stop, or cannot start."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import uuid

import httpx2
import pytest
import trio

from benchmarks.slow import MALFORMED
from tests.service.helpers import TRACE, problem, running
from tests.streams import Maker, joined, name_of, session
from tracesvc.service import Config, ServiceError, parse_address, serve

SERVERS = pytest.mark.parametrize("server", ["anycorn", "hypercorn"])
COMMAND = [sys.executable, "-m", "tracesvc", "serve"]


@contextlib.contextmanager
def process(*arguments, listen="127.0.0.1:0"):
    """(process, url) of a service that answers."""
    child = subprocess.Popen(
        [*COMMAND, "--listen", listen, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line.startswith("tracesvc: listening on http://")
            yield child, line.split()[-1]
        finally:
            child.kill()


def failing(*arguments):
    """(exit status, standard error) of a service that cannot start."""
    run = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert run.stdout == ""
    return run.returncode, run.stderr


def stop(child, number=signal.SIGTERM):
    """(exit status, seconds it took)."""
    began = time.monotonic()
    child.send_signal(number)
    return child.wait(20), time.monotonic() - began


# --- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(tmp_path, number):
    with process("--data", tmp_path) as (child, url):
        assert httpx2.get(f"{url}/healthz").status_code == 200
        status, seconds = stop(child, number)
        assert status == 0
        assert seconds < 5
        assert child.stdout.read() == child.stderr.read() == ""


def big(url):
    """Put a session of 40 MB there; its name."""
    made = Maker(text="x" * 2000)
    stream = joined([*made.start(), *made.events(20_000, number=20)])
    target = f"{url}/v1/sessions/{made.session}/frames"
    assert httpx2.post(target, content=stream, headers=TRACE, timeout=60).status_code == 200
    return made.session


@SERVERS
def test_a_stalled_follower_does_not_keep_it(tmp_path, server):
    with process("--data", tmp_path, "--grace", 1, "--server", server) as (child, url):
        name = big(url)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as stalled:
            request = b"GET /v1/sessions/%b/frames?follow=true HTTP/1.1\r\nhost: x\r\n\r\n"
            stalled.sendall(request % name.encode())
            assert stalled.recv(100).startswith(b"HTTP/1.1 200")
            status, seconds = stop(child)
        assert status == 0
        assert seconds < 10
        print(f"{server}: stopped after {seconds:.1f} s with a stalled follower")
    with process("--data", tmp_path) as (child, url):
        assert httpx2.get(f"{url}/v1/sessions/{name}").json()["events"] == 20_000


@SERVERS
def test_an_upload_that_stands_still_does_not_keep_it(tmp_path, server):
    with process("--data", tmp_path, "--grace", 1, "--server", server) as (child, url):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as upload:
            upload.sendall(
                b"POST /v1/sessions/%b/frames HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
                b"content-type: application/vnd.tracesvc\r\n\r\n" % str(uuid.uuid4()).encode()
            )
            assert httpx2.get(f"{url}/healthz").status_code == 200
            status, seconds = stop(child)
        assert status == 0
        assert seconds < 10


@SERVERS
async def test_a_request_in_flight_is_finished(tmp_path, server, nursery):
    frames = session(1000, batch=10)
    stream, sent = joined(frames), trio.Event()

    async with running(tmp_path, server=server, grace=5) as service:

        async def body():
            yield stream[:20_000]
            sent.set()
            await service.stopping.wait()
            yield stream[20_000:]

        async def post():
            answer = await service.post(name_of(frames), 0, body())
            assert answer.json() == {"offset": len(stream)}

        async with trio.open_nursery() as posting:
            posting.start_soon(post)
            await sent.wait()
            service.stopping.set()
        await service.stopped.wait()


async def test_cancelling_it_is_no_failure(tmp_path):
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve, Config(tmp_path, port=0))
            async with httpx2.AsyncClient(base_url=url) as client:
                assert (await client.get("/healthz")).status_code == 200
            scope.cancel()
    assert scope.cancelled_caught


# --- not starting --------------------------------------------------------------------------------


def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, error = failing("--listen", f"127.0.0.1:{port}", "--data", tmp_path)
    assert status == 1
    assert error == (
        f"tracesvc: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another address, or port 0 for any free one\n"
    )


def test_no_such_address(tmp_path):
    status, error = failing("--listen", "no.such.host.invalid:1", "--data", tmp_path)
    assert status == 1
    assert error.count("\n") == 1
    assert "cannot listen on no.such.host.invalid:1" in error


def test_a_data_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    status, error = failing("--listen", "127.0.0.1:0", "--data", tmp_path / "file")
    assert status == 1
    assert error.startswith(f"tracesvc: the data directory {tmp_path}/file cannot be written")
    assert error.count("\n") == 1


def test_a_second_service_on_one_data_directory(tmp_path):
    with process("--data", tmp_path) as (child, _):
        status, error = failing("--listen", "127.0.0.1:0", "--data", tmp_path)
        assert status == 1
        assert error == (
            f"tracesvc: the data directory {tmp_path} is in use by another service (process {child.pid})\n"
        )


@pytest.mark.parametrize(
    "listen", ["127.0.0.1", "localhost:http", ":7070", "127.0.0.1:70700", "x:-1"]
)
def test_an_address_that_is_none(tmp_path, listen):
    status, error = failing("--listen", listen, "--data", tmp_path)
    assert status == 2
    assert "HOST:PORT" in error


def test_addresses():
    assert parse_address("localhost:0") == ("localhost", 0)
    assert parse_address("[::1]:7070") == ("::1", 7070)


async def test_ipv6(tmp_path):
    async with trio.open_nursery() as nursery:
        try:
            url = await nursery.start(serve, Config(tmp_path, host="::1", port=0))
        except ServiceError as exc:
            pytest.skip(f"needs IPv6: {exc}")
        assert url.startswith("http://[::1]:")
        async with httpx2.AsyncClient(base_url=url) as client:
            assert (await client.get("/healthz")).status_code == 200
        nursery.cancel_scope.cancel()


# --- clients that do not behave ------------------------------------------------------------------


@SERVERS
async def test_whoever_sends_much_that_is_refused_gets_the_answer(tmp_path, server):
    """Most clients read nothing before they have sent everything."""
    async with running(tmp_path, server=server) as service:
        for path in ("/v1/nowhere", f"/v1/sessions/{uuid.uuid4()}/frames"):
            answer = await service.client.post(path, content=bytes(5 << 20))
            problem(answer, *((404, "not-found") if path == "/v1/nowhere" else (415, "media-type")))
        assert (await service.get("/healthz")).status_code == 200


@SERVERS
async def test_whoever_sends_without_end_is_cut_off(tmp_path, server):
    async with running(tmp_path, server=server) as service:
        connection = await service.raw(
            b"POST /v1/nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        async with connection:
            sent = 0
            with contextlib.suppress(trio.BrokenResourceError):
                while sent < 100 << 20:
                    await connection.send_all(chunk)
                    sent += len(chunk)
        assert sent < 100 << 20
        await trio.testing.wait_all_tasks_blocked()
        assert (await service.get("/healthz")).status_code == 200


@SERVERS
async def test_whatever_comes_in_the_place_of_a_request_costs_its_own_connection(tmp_path, server):
    """And nothing else: no other client, no line of traceback."""
    async with running(tmp_path, server=server, idle_timeout=0.5) as service:
        for request in MALFORMED:
            async with await service.raw(request) as stream:
                with trio.move_on_after(0.1), contextlib.suppress(trio.BrokenResourceError):
                    await stream.receive_some()
            assert (await service.get("/healthz")).status_code == 200, request[:100]


def test_what_clients_break_is_no_failure_of_the_service(tmp_path):
    with process("--data", tmp_path, "--idle-timeout", 1) as (child, url):
        address = "127.0.0.1", int(url.rpartition(":")[2])
        for request in MALFORMED:
            with socket.create_connection(address) as connection:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while connection.recv(1 << 16):
                        pass
        assert httpx2.get(f"{url}/healthz").status_code == 200
        assert stop(child)[0] == 0
        said = child.stderr.read()
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 2 * len(MALFORMED)


@SERVERS
@pytest.mark.parametrize(
    "request_", [b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["silent", "asked"]
)
async def test_a_client_that_goes_leaves_nothing_behind(tmp_path, server, request_):
    async with running(tmp_path, server=server, idle_timeout=600.0) as service:
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = trio.lowlevel.current_statistics().tasks_living
        streams = [await service.raw(request_) for _ in range(20)]
        for stream in streams:
            if request_:
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(30):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_slow_clients_are_hung_up_on_and_delay_nobody(tmp_path):
    """Here some; ``make campaign-slow`` has the thousands."""
    async with running(tmp_path, idle_timeout=0.3) as service:
        slow = [await service.raw(b"GET /healthz HTTP/1.1\r\nhost: ") for _ in range(100)]
        bodies = [
            await service.raw(
                b"POST /v1/sessions/%b/frames HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
                b"content-type: application/vnd.tracesvc\r\n\r\n\x96" % str(uuid.uuid4()).encode()
            )
            for _ in range(100)
        ]
        frames = session(100)
        await service.keep(frames)
        for stream in slow:
            with contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        for stream in [*slow, *bodies]:
            await stream.aclose()
        assert (await service.get(f"/v1/sessions/{name_of(frames)}")).status_code == 200
