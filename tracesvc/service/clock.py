"""The service's clock, as it tells it to who pushes: the reference of all sessions that come here.

It is ``CLOCK_MONOTONIC``, which nobody sets, with a name: replicas on one machine have the same clock, those on others
have others.
"""

from __future__ import annotations

import uuid
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracesvc.recorder.clock import clock_name, now, wall
from tracesvc.sinks.timekeeper import HEADER

__all__ = ["NAME", "clock", "tell"]

NAME: Final = clock_name() or uuid.uuid4().hex[:16]
"""of this machine's clock; where the system has no name for it, of this process's"""


def tell(answer: Response, arrived: int) -> None:
    """Have an answer that goes out now say when its request ``arrived`` (see `now`), and what time it is."""
    answer.headers[HEADER] = f"{NAME} {arrived} {now()} {wall()}"


async def clock(_request: Request) -> Response:
    """``GET /v1/clock``: name and reading of the clock; the header ``tracesvc-clock`` says it too, as of every POST."""
    arrived = now()
    answer = JSONResponse({"clock": NAME, "monotonic": arrived, "wall": wall()})
    tell(answer, arrived)
    return answer
