"""`attach`: from another process of the same user, have a program traced and get its frames.

Everything here is synchronous, for command lines and tools.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tracesvc.control.errors import ControlError
from tracesvc.control.place import seen_from_outside
from tracesvc.control.startup import SIGNAL

__all__ = ["Attached", "attach"]

PATIENCE: Final = 5.0
"""seconds that a program has to answer: a signal handler runs between two steps of the interpreter"""
PAUSE: Final = 0.05
"""seconds between two looks whether it listens"""
GOODBYE: Final = 2.0
"""seconds between two pieces of what is left of a trace that is given up"""
PIECE: Final = 1 << 18


def attach(
    pid: int,
    *,
    seconds: float | None = None,
    options: dict[str, Any] | None = None,
    signal: int = SIGNAL,
) -> Attached:
    """Have process ``pid`` traced; a context manager, to be iterated over for the bytes of the trace.

    Args:
      pid: a process that has called `tracesvc.install`, or any from CPython 3.14 on.
      seconds: for how long; None: until `Attached.stop`.
      options: of the tracer, where none runs in the program yet: stacks, slow_block_s, stall_s.
      signal: what the program was told to listen for.

    Raises:
      ControlError: it cannot be attached to; the message says why.
    """
    _demand_ours(pid)
    connection = _connect(pid, signal)
    try:
        request = {"do": "trace", "seconds": seconds, "options": options or {}}
        connection.sendall(json.dumps(request).encode() + b"\n")
        connection.settimeout(PATIENCE)
        answer, rest = _answer(connection, pid)
        connection.settimeout(None)
    except (OSError, ControlError) as exc:
        connection.close()
        if isinstance(exc, ControlError):
            raise
        raise ControlError(f"process {pid} does not answer: {exc}") from exc
    return Attached(connection, answer, rest)


class Attached:
    """A trace that comes from another process; made by `attach`."""

    def __init__(self, connection: socket.socket, program: dict[str, Any], rest: bytes) -> None:
        self.program: Final = program
        """name, python, trio"""
        self._connection: Final = connection
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        """The trace as it comes, in pieces of any size, until it ends; or, without an end mark, the program did."""
        if self._rest:
            yield self._rest
            self._rest = b""
        with contextlib.suppress(ConnectionError):
            while piece := self._connection.recv(PIECE):
                yield piece

    def stop(self) -> None:
        """Have the trace end in order: what is left of it comes still."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        with contextlib.suppress(
            OSError
        ):  # to hang up in the middle would look like a fault over there
            self._connection.settimeout(GOODBYE)
            while self._connection.recv(PIECE):
                pass
        self._connection.close()


def _demand_ours(pid: int) -> None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        raise ControlError(f"there is no process {pid}") from None
    except PermissionError:
        pass
    else:
        if not _is_of_another(pid):
            return
    owner = _owner(pid)
    raise ControlError(
        f"process {pid} belongs to {owner}: only the same user may attach (sudo -u {owner} tracesvc ...)"
    )


def _is_of_another(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}").stat().st_uid != os.geteuid()
    return False


def _owner(pid: int) -> str:
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return "another user"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _connect(pid: int, signal: int) -> socket.socket:
    """Knock until the door is open."""
    path = seen_from_outside(pid) / f"{pid}.sock"
    connection = _try(path)
    if connection is not None:
        return connection
    if not _listens_for(pid, signal):
        _inject(pid)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if _listens_for(pid, signal):
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                raise ControlError(f"process {pid} has just ended") from None
        for _ in range(10):
            time.sleep(PAUSE)
            connection = _try(seen_from_outside(pid) / f"{pid}.sock")
            if connection is not None:
                return connection
    raise ControlError(
        f"process {pid} does not answer within {PATIENCE:g} s: its main thread is in a call that lets no "
        "signal handler run, or the handler was replaced; its log may say more"
    )


def _try(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        return None
    return connection


def _listens_for(pid: int, signal: int) -> bool:
    """Whether the process has a handler; where that cannot be seen, yes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal - 1) & 1)


def _inject(pid: int) -> None:
    """Open the door of a program that has prepared nothing, by CPython's own way in (PEP 768)."""
    remote_exec = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        raise ControlError(
            f"process {pid} is not prepared: call tracesvc.install() in it, or start it with TRACESVC=attach "
            "(from CPython 3.14 on, on both sides, neither is needed)"
        )
    from tracesvc.control.place import meeting_place

    script = meeting_place() / f"{pid}.py"
    script.write_text(door_script())
    try:
        remote_exec(pid, os.fspath(script))
    except (OSError, RuntimeError, ValueError, ProcessLookupError) as exc:
        script.unlink(missing_ok=True)
        raise ControlError(f"process {pid} cannot be attached to: {exc}") from exc


def door_script() -> str:
    """What a program is to run that has prepared nothing; it may have no tracesvc of its own."""
    import tracesvc

    root = os.fspath(Path(tracesvc.__file__).parent.parent)
    return (
        "import sys\n"
        f"sys.path.append({root!r})\n"
        "from tracesvc.control.door import open_door\n"
        "open_door()\n"
    )


def _answer(connection: socket.socket, pid: int) -> tuple[dict[str, Any], bytes]:
    data = b""
    while b"\n" not in data:
        piece = connection.recv(PIECE)
        if not piece:
            raise ControlError(f"process {pid} hung up; its log may say why")
        data += piece
    line, _, rest = data.partition(b"\n")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ControlError(f"process {pid}: {answer['error']}")
    return answer, rest
