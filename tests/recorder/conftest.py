"""What holds for every test of the recorder."""

import pytest
import trio

from tracesvc.recorder.tracer import current_tracer


@pytest.fixture(autouse=True)
def no_tracer_is_left_behind():
    """One that a failing test left ON would make all that follow fail."""
    yield
    tracer = current_tracer()
    if tracer is not None:

        async def stop() -> None:
            with trio.move_on_after(1):
                await tracer.stop()

        trio.run(stop)
    assert tracer is None, "the test left a tracer behind"
