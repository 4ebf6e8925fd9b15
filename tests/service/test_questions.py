"""Questions over HTTP are answered as the library answers them, within bounds."""

import io
import json
import tarfile
import uuid

import duckdb
import pytest
import trio
import trio.testing

from tests.service.helpers import problem, running
from tests.streams import session
from tests.traces import program
from tracesvc.analysis import diff as differences
from tracesvc.analysis import latencies, lint, stalls, summarize, tasks_at, why, why_window
from tracesvc.export import FORMATS
from tracesvc.export import export as write
from tracesvc.model import read
from tracesvc.model.verify import verify
from tracesvc.rewrite import cut

WHOLE = program(11, events=2000)
LOSSY = program(12, events=2000, losses=0.1)


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path) as up:
        yield up


async def keep(service, stream):
    name = read(stream.data).session.id
    answer = await service.post(name, 0, stream.data)
    assert answer.status_code == 200
    return name


def plain(answer):
    return json.loads(json.dumps(answer.as_dict(), default=repr))


def middle(stream):
    with read(stream.data) as trace:
        times = [event.time for event in trace]
    return (min(times) + max(times)) // 2, max(times)


QUESTIONS = {
    "summary": lambda trace, *_: summarize(trace),
    "tasks": lambda trace, *_: tasks_at(trace),
    "tasks?at=@{middle}": lambda trace, middle, _: tasks_at(trace, middle),
    "why": lambda trace, *_: why(trace),
    "why?from=@{middle}&to=@{end}": why_window,
    "stalls?over=1us&most=3": lambda trace, *_: stalls(trace, 1000, 3),
    "latency": lambda trace, *_: latencies(trace),
    "lint?step=1ms&tasks=2": lambda trace, *_: lint_with(trace, step=1_000_000, tasks=2),
}


def lint_with(trace, **limits):
    from tracesvc.analysis import Limits

    return lint(trace, Limits(**limits))


@pytest.mark.parametrize("stream", [WHOLE, LOSSY], ids=["whole", "lossy"])
async def test_answers_are_those_of_the_library(service, stream):
    name = await keep(service, stream)
    half, end = middle(stream)
    for path, ask in QUESTIONS.items():
        path = path.format(middle=half, end=end)
        answer = await service.get(f"/v1/sessions/{name}/{path}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        with read(stream.data) as trace:
            assert answer.json() == plain(ask(trace, half, end)), path
        again = await service.get(f"/v1/sessions/{name}/{path}")
        assert again.content == answer.content


async def test_a_diff_of_two_sessions(service):
    before, after = await keep(service, WHOLE), await keep(service, LOSSY)
    answer = await service.get(f"/v1/sessions/{after}/diff", params={"before": before})
    with read(WHOLE.data) as old, read(LOSSY.data) as new:
        assert answer.json() == plain(differences(old, new))
    problem(await service.get(f"/v1/sessions/{after}/diff"), 400, "bad-parameter")
    nobody = {"before": str(uuid.uuid4())}
    problem(await service.get(f"/v1/sessions/{after}/diff", params=nobody), 404, "unknown-session")


async def test_what_has_come_since_is_in_the_answer(service):
    frames = session(50, procs=1)
    name = await service.keep(frames[:-1])
    first = (await service.get(f"/v1/sessions/{name}/summary")).json()
    size = sum(len(frame.data) for frame in frames[:-1])
    await service.post(name, size, frames[-1].data)
    second = (await service.get(f"/v1/sessions/{name}/summary")).json()
    assert (first["ended"], second["ended"]) == (False, True)


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("tasks?at=yesterday", 400, "bad-parameter"),
        ("tasks?at=99:99:99", 400, "bad-parameter"),
        ("why?span=nobody", 404, "not-found"),
        ("why?span=123456789", 404, "not-found"),
        ("why?from=1s", 400, "bad-parameter"),
        ("why?from=2s&to=1s", 400, "bad-parameter"),
        ("why?span=x&from=1s&to=2s", 400, "bad-parameter"),
        ("why?task=7", 400, "bad-parameter"),
        ("stalls?over=-1", 400, "bad-parameter"),
        ("stalls?most=0", 400, "bad-parameter"),
        ("latency?of=nothing", 400, "bad-parameter"),
        ("lint?only=nothing", 400, "bad-parameter"),
        ("diff?before=x", 422, "bad-session-name"),
        ("diff?before=x&ratio=0.5", 400, "bad-parameter"),
        ("diff?before=x&ratio=nan", 400, "bad-parameter"),
        ("export/nothing", 404, "unknown-format"),
        ("cut?from=yesterday", 400, "bad-parameter"),
        ("cut?from=2s&to=1s", 400, "bad-parameter"),
        ("cut?from=99999s", 404, "nothing-there"),
    ],
)
async def test_what_cannot_be_asked(service, path, status, code):
    name = await keep(service, WHOLE)
    problem(await service.get(f"/v1/sessions/{name}/{path}"), status, code)


@pytest.mark.parametrize(
    "path", ["tasks", "why", "stalls", "latency", "lint", "export/go", "cut?from=1s"]
)
async def test_an_unknown_session(service, path):
    problem(await service.get(f"/v1/sessions/{uuid.uuid4()}/{path}"), 404, "unknown-session")


@pytest.mark.parametrize("to", FORMATS)
async def test_exports(service, to, tmp_path):
    name = await keep(service, LOSSY)
    answer = await service.get(f"/v1/sessions/{name}/export/{to}")
    assert answer.status_code == 200
    if not FORMATS[to].directory:
        out = io.BytesIO()
        write(LOSSY.data, to, out)
        same = answer.content == out.getvalue()
        assert same or to == "pprof"  # which is packed, with the time of day in it
        return
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        tar.extractall(tmp_path, filter="data")
    write(LOSSY.data, to, tmp_path / "direct")
    there = sorted(path.name for path in (tmp_path / name).rglob("*"))
    assert there == sorted(path.name for path in (tmp_path / "direct").rglob("*"))
    if to == "parquet":
        count = "select count(*) from read_parquet('{}')"
        for table in there:
            pair = [
                duckdb.sql(count.format(tmp_path / where / table)).fetchall()
                for where in (name, "direct")
            ]
            assert pair[0] == pair[1]


async def test_a_part_is_what_the_library_cuts(service):
    stream = program(21, events=4000, generations=8, losses=0.1)
    name = await keep(service, stream)
    times = [event.time for event in stream.events]
    begin, end = times[len(times) // 3], times[len(times) // 2]
    for query, bounds in (
        (f"from=@{begin}&to=@{end}", (begin, end)),
        (f"from=@{begin}", (begin, None)),
        (f"to=@{end}", (None, end)),
        ("", (None, None)),
    ):
        made = []
        cut(stream.data, made.append, begin=bounds[0], end=bounds[1])
        answer = await service.get(f"/v1/sessions/{name}/cut?{query}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/vnd.tracesvc"
        assert name in answer.headers["content-disposition"]
        assert answer.content == b"".join(made)
        assert verify(answer.content).ok
    assert len(answer.content) == len(stream.data)


async def test_an_export_whose_client_goes_away_gives_its_thread_back(tmp_path):
    large = program(13, events=30_000)
    async with running(tmp_path) as service:
        name = await keep(service, large)
        for _ in range(4):  # as many as there are threads, and more; none of them is heard out
            request = f"GET /v1/sessions/{name}/export/jsonl HTTP/1.1\r\nhost: x\r\n\r\n"
            async with await service.raw(request.encode()) as stream:
                assert (await stream.receive_some(100)).startswith(
                    (b"HTTP/1.1 200", b"HTTP/1.1 503")
                )
        with trio.fail_after(60):
            while (
                answer := await service.get(f"/v1/sessions/{name}/export/jsonl")
            ).status_code != 200:
                problem(answer, 503, "busy")
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert answer.content.count(b"\n") > 30_000


async def test_a_question_that_takes_too_long_is_ended(tmp_path):
    async with running(tmp_path, question_timeout=0.0) as service:
        name = await keep(service, WHOLE)
        problem(await service.get(f"/v1/sessions/{name}/summary"), 503, "too-long")


async def test_too_many_questions_at_once_are_refused(tmp_path):
    async with running(tmp_path) as service:
        name = await keep(service, WHOLE)
        statuses = []

        async def ask(i):
            answer = await service.get(f"/v1/sessions/{name}/stalls", params={"over": f"{i + 1}us"})
            statuses.append(answer.status_code)
            if answer.status_code != 200:
                assert problem(answer, 503, "busy")
                assert answer.headers["retry-after"]

        async with trio.open_nursery() as nursery:
            for i in range(60):
                nursery.start_soon(ask, i)
        assert statuses.count(200) >= 16
        assert len(statuses) == 60
