"""The door of a program: it answers at a socket while somebody is there, in a thread and a trio run of its own.

A client sends one line of JSON, ``{"do": "trace", ...}``, and gets one back, ``{"ok": true, ...}`` or ``{"error":
"..."}``; behind it come the frames of the session, in the format of a trace file.  When the client shuts down its
side for writing, or the seconds are over, the trace ends in order; a client that is gone ends it as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio

from tracesvc.control.errors import ControlError
from tracesvc.control.place import meeting_place
from tracesvc.recorder import own_run
from tracesvc.recorder.errors import TracerError
from tracesvc.recorder.runs import call_in_runs
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.source import program_name
from tracesvc.recorder.tracer import Tracer
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.stream import StreamSink

__all__ = ["open_door"]

logger: Final = logging.getLogger("tracesvc")

IDLE: Final = 5.0
"""seconds after the last client left that the door stays open"""
MAX_REQUEST: Final = 64 << 10
"""bytes"""
PATIENCE: Final = 10.0
"""seconds that a client may take to say what it wants, and to take what is left at the end"""
OPTIONS: Final = frozenset({"stacks", "slow_block_s", "stall_s", "buffer_events", "queue_buffers"})
"""of the tracer, that a client may choose where none runs yet"""


class _Door:
    open = threading.Lock()
    """held by the thread that listens"""

    @classmethod
    def renew(cls) -> None:
        """In a forked child nobody listens."""
        cls.open = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Door.renew)


def open_door() -> None:
    """Listen until nobody has been there for a while.  Nothing, where another thread does already; never raises."""
    if not _Door.open.acquire(blocking=False):
        return
    thread = threading.Thread(target=_listen, name=f"{OWN}door", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the program is about to end
        _Door.open.release()


def _listen() -> None:
    try:
        path = meeting_place() / f"{os.getpid()}.sock"
        own_run.run(_serve, path)
    except ControlError as exc:
        logger.error("tracesvc: nobody can attach: %s", exc)
    except Exception:
        logger.exception("tracesvc: nobody can attach")
    finally:
        _Door.open.release()


async def _serve(path: Path) -> None:
    with _listening(path) as listener:
        here = 0
        idle = trio.CancelScope(deadline=trio.current_time() + IDLE)

        async def greet(stream: trio.SocketStream) -> None:
            nonlocal here
            here, idle.deadline = here + 1, float("inf")
            try:
                async with stream:
                    await _answer(stream)
            except Exception:
                logger.exception("tracesvc: who attached was let down")
            finally:
                here -= 1
                if not here:
                    idle.deadline = trio.current_time() + IDLE

        async with trio.open_nursery() as nursery:
            with idle:
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(greet, trio.SocketStream(connection), name=f"{OWN}attached")


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[trio.socket.SocketType]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # of a process that had this number before
        listener.bind(os.fspath(path))
        listener.listen(16)
        try:
            yield trio.socket.from_stdlib_socket(listener)
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


async def _answer(stream: trio.SocketStream) -> None:
    with trio.move_on_after(PATIENCE) as patience:
        request = await _request(stream)
    if patience.cancelled_caught or request is None:
        return
    refusal = _refusal(stream, request)
    if refusal:
        await _say(stream, {"error": refusal})
        return
    await _trace(stream, request)


async def _request(stream: trio.abc.ReceiveStream) -> dict[str, Any] | None:
    line = b""
    while not line.endswith(b"\n"):
        if len(line) > MAX_REQUEST:
            return None
        try:
            part = await stream.receive_some()
        except trio.BrokenResourceError:
            return None
        if not part:
            return None
        line += part
    try:
        request = json.loads(line)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _refusal(stream: trio.SocketStream, request: dict[str, Any]) -> str:
    """Why not; empty: there is no reason."""
    if hasattr(socket, "SO_PEERCRED"):
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        user = struct.unpack("3i", credentials)[1]
        if user != os.geteuid():
            return f"only user {os.geteuid()} may attach to this program"
    if request.get("do") != "trace":
        return "this program can only be asked to trace"
    seconds = request.get("seconds")
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
        return f"seconds must be a number above 0, not {seconds!r}"
    unknown = {*request.get("options", {})} - OPTIONS
    if unknown:
        return f"there is no option {min(unknown)!r} for who attaches"
    return ""


async def _trace(stream: trio.SocketStream, request: dict[str, Any]) -> None:
    """Trace into ``stream`` for ``request["seconds"]`` (None: until the other side has enough)."""
    seconds, options = request.get("seconds"), request.get("options", {})
    sink = StreamSink(stream, "attached", preamble=_line(_description()))
    try:
        async with open_tracer(sink, drain_timeout=PATIENCE, **options) as tracer:
            call_in_runs(_recorder(tracer))
            with trio.move_on_after(float("inf") if seconds is None else seconds):
                await _until_enough(stream)
    except (TracerError, ValueError, TypeError) as exc:  # all on entering, before the first byte
        await _say(stream, {"error": str(exc)})


def _recorder(tracer: Tracer) -> Any:
    def record() -> None:
        try:
            tracer.record_run()
        except Exception:
            logger.exception("tracesvc: this run cannot be recorded")

    return record


def _description() -> dict[str, Any]:
    return {
        "ok": True,
        "pid": os.getpid(),
        "name": program_name(),
        "python": sys.version.split()[0],
        "trio": trio.__version__,
    }


async def _until_enough(stream: trio.SocketStream) -> None:
    """Until the other side says nothing more, or is gone."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def _say(stream: trio.abc.SendStream, answer: dict[str, Any]) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(_line(answer))


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"
