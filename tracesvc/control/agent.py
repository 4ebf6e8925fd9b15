"""`agent`: a task in a program that does what a service asks for: start and stop a trace, send a snapshot.

It holds one HTTP request open.  While that stands, a trace that was started from afar goes on; when it is lost, the
trace ends: nobody is left who could end it.
"""

from __future__ import annotations

import importlib.util
import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from tracesvc.control.errors import ControlError
from tracesvc.recorder.source import program_name

if TYPE_CHECKING:
    from tracesvc.sinks.flight import FlightRecorder

__all__ = ["agent"]

logger: Final = logging.getLogger("tracesvc")


async def agent(
    url: str,
    token: str | None = None,
    *,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    flight: FlightRecorder | None = None,
    max_backoff: float = 30.0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Wait for commands of the service at ``url``, until cancelled; to be started in a nursery of the program's.

    ::

        nursery.start_soon(tracesvc.agent, "https://traces.example:7070", token)

    A trace that is asked for is pushed to that service.  Where the program traces itself already, its session is
    joined.  The service being away is no failure: it is tried again, with jitter, and said once in the log.

    Args:
      url: of the service, as for `PushSink`.
      token: sent as ``Authorization: Bearer``; needs the scope ``ingest``.
      name: the source that it answers as; by default what the program is called in its traces.
      labels: more by which it can be chosen, such as ``{"region": "north"}``.
      flight: a recorder of the program's, for ``snapshot``.
      max_backoff: seconds between two attempts, at most.
      task_status: is told the agent's number when it is connected for the first time.

    Raises:
      ControlError: httpx2 is not installed, or the service refuses for good.
    """
    if importlib.util.find_spec("httpx2") is None:
        raise ControlError("the agent needs httpx2: pip install 'tracesvc[push]'")
    from tracesvc.control.line import Line, LostError  # not before somebody wants it

    source = name or program_name()
    line = Line(url.rstrip("/"), token, source, dict(labels or {}), flight, task_status.started)
    pause, told = 0.5, False
    while True:
        began = trio.current_time()
        try:
            await line.hold()
        except LostError as exc:
            if not told:
                logger.warning("tracesvc: the agent has no connection to %s: %s", url, exc)
            told = True
        if trio.current_time() - began > max_backoff:
            pause, told = 0.5, False
        await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
        pause = min(pause * 2, max_backoff)
