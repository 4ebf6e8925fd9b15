import uuid

import pytest

from tests.service.helpers import problem, running
from tests.streams import joined, name_of, session


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path) as up:
        yield up


async def test_sessions_by_page(service):
    names: list[str] = []
    for i in range(5):
        name = await service.keep(session(5, procs=1, name=f"s{i % 2}", start_wall=10**18 + i))
        names.insert(0, name)
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        parameters = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await service.get("/v1/sessions", params=parameters)).json()
        assert 1 <= len(page["sessions"]) <= 2
        seen += [found["session"] for found in page["sessions"]]
        cursor = page["next"]
    assert seen == names
    found = (await service.get("/v1/sessions", params={"source": "s1"})).json()["sessions"]
    assert [each["session"] for each in found] == [names[1], names[3]]
    assert found[0]["source"]["name"] == "s1"
    found = (await service.get("/v1/sessions", params={"state": "live"})).json()
    assert found == {"sessions": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=asleep",
        "cursor=x",
        "cursor=WyJhIiwgMV0=",
        "cursor=%00%ff",
        "cursor=" + "W1tb" * 9000,
    ],
    ids=range(8),
)
async def test_bad_parameters_of_the_list(service, query):
    answer = await service.get(f"/v1/sessions?{query}")
    assert answer.status_code in (400, 431)
    if answer.status_code == 400 and answer.text:
        problem(answer, 400, "bad-parameter")


@pytest.mark.parametrize("path", ["", "/frames", "/live", "/summary"])
async def test_an_unknown_session(service, path):
    problem(await service.get(f"/v1/sessions/{uuid.uuid4()}{path}"), 404, "unknown-session")
    problem(await service.get(f"/v1/sessions/nonsense{path}"), 422, "bad-session-name")


async def test_an_unknown_path_or_method(service):
    problem(await service.get("/v2"), 404, "not-found")
    answer = await service.client.delete("/v1/sessions")
    problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


async def test_health_and_readiness(service):
    assert (await service.get("/healthz")).json() == {"status": "ok"}
    assert (await service.get("/readyz")).json() == {"status": "ready"}


async def test_a_session_is_deleted(service):
    frames = session(50)
    name = await service.keep(frames)
    answer = await service.client.delete(f"/v1/sessions/{name}")
    assert (answer.status_code, answer.content) == (204, b"")
    problem(await service.get(f"/v1/sessions/{name}"), 404, "unknown-session")
    problem(await service.client.delete(f"/v1/sessions/{name}"), 404, "unknown-session")
    name = name_of(frames)
    await service.post(name, 0, joined(frames[:-1]))
    problem(await service.client.delete(f"/v1/sessions/{name}"), 409, "session-live")
