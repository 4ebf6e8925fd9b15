"""Clocks over the wire: real exchanges between a push sink and a service, and what the service says of them."""

import functools
import time

import httpx2
import pytest
import trio

import tracesvc
from tests.service.helpers import running
from tests.streams import Maker, joined
from tracesvc.model.reader import read
from tracesvc.model.timebase import timebase_of
from tracesvc.recorder.clock import clock_name
from tracesvc.sinks import PushSink
from tracesvc.sinks.timekeeper import HEADER, Timekeeper


async def test_every_post_of_frames_tells_when_it_came_and_went(tmp_path):
    made = Maker()
    async with running(tmp_path) as service:
        before = time.monotonic_ns()
        answer = await service.post(made.session, 0, joined(made.start()))
        after = time.monotonic_ns()
        name, *numbers = answer.headers[HEADER].split(" ")
        arrived, answered, wall = map(int, numbers)
        assert before <= arrived <= answered <= after
        assert abs(wall - time.time_ns()) < 60 * 10**9
        assert name == clock_name()
        refused = await service.post("nonsense", 0, b"")
        assert refused.status_code == 422
        assert refused.headers[HEADER].startswith(name)
        told = await service.get("/v1/clock")
        assert told.json()["clock"] == name
        assert told.headers[HEADER].startswith(name)


class Shifted:
    """A clock that is off, and gains or loses."""

    def __init__(self, offset, ppm=0):
        self.offset, self.ppm, self.begun = offset, ppm, time.monotonic_ns()

    def __call__(self):
        true = time.monotonic_ns()
        return true + self.offset + (true - self.begun) * self.ppm // 1_000_000


@pytest.mark.parametrize("offset, ppm", [(0, 0), (10**15, 400), (-3 * 10**9, -400)])
async def test_the_offset_of_a_shifted_clock_is_found_within_its_uncertainty(tmp_path, offset, ppm):
    clock, learned = Shifted(offset, ppm), []
    timekeeper = Timekeeper(learned.append, clock)
    made = Maker()
    async with running(tmp_path) as service:
        await timekeeper.ask(service.client, service.url)
        where, at = f"{service.url}/v1/sessions/{made.session}/frames", 0
        for data in (joined(made.start()), *(joined(made.events(50)) for _ in range(5))):
            answer = await timekeeper.post(
                service.client,
                where,
                params={"offset": at},
                content=data,
                headers={"content-type": "application/vnd.tracesvc"},
            )
            at = answer.json()["offset"]
    from tracesvc.model.clocks import Relation

    relation = Relation(learned)
    assert learned
    assert not relation.steps
    for moment in (learned[0].sent, learned[-1].received, learned[-1].received + 10**10):
        low, high = relation.at(moment)
        # The moment by the true clock, and so the true difference.
        true = clock.begun + (moment - offset - clock.begun) * 1_000_000 // (1_000_000 + ppm)
        assert low - 10 <= true - moment <= high + 10


async def test_what_says_nothing_new_is_not_told(tmp_path):
    learned = []
    timekeeper = Timekeeper(learned.append)
    async with running(tmp_path) as service:
        for _ in range(30):
            await timekeeper.ask(service.client, service.url)
    assert len(learned) < 30


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x 1 2",
        "x 1 2 3 4",
        " 1 2 3",
        "x 2 1 3",
        "x -1 2 3",
        f"x 1 2 {10**20}",
        "x" * 200 + " 1 2 3",
    ],
)
async def test_an_answer_that_makes_no_sense_tells_no_time(text):
    learned = []
    answer = httpx2.MockTransport(lambda _request: httpx2.Response(200, headers={HEADER: text}))
    async with httpx2.AsyncClient(transport=answer) as client:
        await Timekeeper(learned.append).ask(client, "http://service")
    assert not learned


async def test_a_session_that_is_pushed_says_how_its_clock_relates(tmp_path):
    async with running(tmp_path / "data") as service:
        async with tracesvc.open_tracer(PushSink(service.url), name="brief") as tracer:
            with tracesvc.span("work"):
                await trio.to_thread.run_sync(functools.partial(wait_for_exchange))
            assert tracer.state is tracesvc.TracerState.ON
        answer = await service.get("/v1/sessions")
        [facts] = answer.json()["sessions"]
        assert facts["clock"]["clock"] == clock_name()
        # The service is on this machine: the clock is the same.
        assert facts["clock"]["uncertainty"] == 0
        assert abs(facts["clock"]["offset"]) < 10**9
        one = await service.get(f"/v1/sessions/{facts['session']}")
        assert one.json()["clock"] == facts["clock"]
        with read(await service.store.path(facts["session"])) as trace:
            base = timebase_of(trace)
        assert base.exchanges
        assert base.clock == clock_name()


def wait_for_exchange():
    from tracesvc.recorder.exchanges import exchanges

    deadline = time.monotonic() + 30
    before = exchanges.count
    while exchanges.count == before and not before and time.monotonic() < deadline:
        time.sleep(0.01)
