"""Clocks over the wire: real exchanges between a push sink and a service, and what the service says of them."""

import subprocess
import sys
import threading
import time

import httpx2
import pytest
import trio

import tracesvc
from tests.judges import require_program
from tests.service.helpers import running
from tests.streams import Maker, joined
from tracesvc.analysis import fleet
from tracesvc.format import Exchange
from tracesvc.model.axis import Method
from tracesvc.model.clocks import Relation
from tracesvc.model.reader import read
from tracesvc.model.timebase import timebase_of
from tracesvc.model.verify import verify
from tracesvc.recorder.clock import clock_name
from tracesvc.recorder.exchanges import exchanges
from tracesvc.rewrite import merge
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


async def test_a_session_that_is_pushed_says_how_its_clock_relates(tmp_path, monkeypatch):
    heard, add = threading.Event(), exchanges.add
    monkeypatch.setattr(exchanges, "add", lambda one: (add(one), heard.set()))
    async with running(tmp_path / "data") as service:
        async with tracesvc.open_tracer(PushSink(service.url), name="brief"):
            with tracesvc.span("work"):
                assert await trio.to_thread.run_sync(heard.wait, 30)
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


SHIFT = 1_000_000 * 10**9


def in_another_time():
    """Words before a command whose monotonic clock is to be a million seconds ahead."""
    unshare = require_program("unshare", package="util-linux")
    words = [unshare, "--time", "--monotonic", str(SHIFT // 10**9)]
    for more in ([], ["--user", "--map-root-user"]):
        tried = [*words, *more]
        if not subprocess.run([*tried, "true"], capture_output=True, check=False).returncode:
            return tried
    pytest.skip("needs a time namespace, which is not allowed here: unshare --time")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one clock", "another clock"])
async def test_two_programs_on_one_axis(tmp_path, elsewhere):
    """One has the service's clock; the other's is a million seconds ahead, and its time of day two hours behind."""
    before = in_another_time() if elsewhere else []
    async with running(tmp_path / "data") as service:
        with trio.fail_after(100):
            program = [sys.executable, "-m", "tests.service.fleet_programs", "ask", service.url]
            await trio.run_process([*program, *before])
        sessions = (await service.get("/v1/sessions")).json()["sessions"]
        facts = {one["source"]["name"]: one for one in sessions}
        asks, answers = (facts[name]["session"] for name in ("asks", "answers"))
        files = {name: await service.store.path(name) for name in (asks, answers)}
        question = {"session": [asks, answers]}
        told = (await service.get("/v1/fleet", params=question)).json()
        why = await service.get(
            f"/v1/sessions/{answers}/why", params={"span": "look up", "with": asks}
        )
    offset = facts["answers"]["clock"]["offset"]
    assert abs(offset - 7200 * 10**9) < 10**9
    with read(files[asks]) as a, read(files[answers]) as b:
        found = fleet([a, b])
    [link] = found.links
    parent, child = (found.axis.of_session(one) for one in (asks, answers))
    assert parent.method is Method.SAME_CLOCK
    shift = SHIFT if elsewhere else 0
    assert child.method is (Method.EXCHANGES if elsewhere else Method.SAME_CLOCK)
    for moment in (child.base.begin, link.child.begin, child.base.end):
        there = child.at(moment)
        right = parent.at(moment - shift)  # as the kernel has it
        assert abs(there.time - right.time) <= there.uncertainty
        assert there.uncertainty < 10**9 if elsewhere else there.uncertainty == 0
    assert not found.axis.contradictions
    assert child.at(link.child.begin).time >= parent.at(link.parent.begin).time
    # and as the service tells it
    members = {one["session"]: one for one in told["sessions"]}
    assert (told["links"], told["contradictions"]) == (1, [])
    assert members[answers]["children"] == members[asks]["parents"] == 1
    assert members[answers]["by"] == str(child.method)
    around = why.json()["ancestors"]
    assert [one["name"] for one in around] == ["answer", "ask", "order"]
    assert [one["elsewhere"] for one in around] == [False, True, False]
    ask = around[1]
    assert ask["source"] == "asks"
    assert ask["before"] > -ask["uncertainty"]
    assert (ask["uncertainty"] > 0) is elsewhere


def test_merged_they_lie_on_one_clock(tmp_path):
    """Three programs whose machines disagree about the time of day by hours."""
    data = []
    for i in range(3):
        made = Maker(name=f"m{i}", start_wall=(1_700_000_000 + 3600 * i) * 10**9)
        made.time += i * 10**12
        frames = made.start()
        ahead = 50 * 10**12 - i * 10**12
        for _ in range(3):
            at = made.time
            told = at, at + ahead + 500, at + ahead + 600, at + 1100
            frames += made.writer.clocks([Exchange(*told, 10**18 + at + ahead + 600, "service")])
            frames += made.events(10)
        data.append(joined([*frames, *made.end()]))
    out = bytearray()
    done = merge(data, out.extend)
    assert [placed.method for placed in done.axis.placed] == [Method.EXCHANGES] * 3
    assert done.axis.clock == "service"
    times = sorted(event.time for event in read(bytes(out)))
    # all began at the same moment, by the service
    assert times[-1] - times[0] < 50_000
    assert verify(bytes(out)).ok


def test_a_restart_of_the_service_is_the_same_clock():
    """And so is that of any other process of the machine, and of every container on it."""
    words = [sys.executable, "-c", "from tracesvc.service.clock import NAME; print(NAME)"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == clock_name()


def test_another_time_namespace_is_another_clock():
    words = [sys.executable, "-c", "from tracesvc.service.clock import NAME; print(NAME)"]
    done = subprocess.run([*in_another_time(), *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() != clock_name()
