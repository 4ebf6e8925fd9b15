"""Who may do what: tokens and their scopes, sources, the page's cookie, TLS."""

import signal
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest
import trio
import trustme

from tests.cli.commands import COMMAND, ENVIRONMENT, run
from tests.service.helpers import TRACE, problem, running
from tests.streams import joined, name_of, session
from tracesvc.service import Config, ServiceError, serve
from tracesvc.service.access import Gate
from tracesvc.service.tokens import (
    Scope,
    TokenBook,
    TokenError,
    TokenFile,
    make_token,
    parse_tokens,
)

ALL = tuple(Scope)


class Guarded:
    """A service with tokens."""

    def __init__(self, root):
        self.file = TokenFile(root / "tokens.json")
        self.gate = Gate(self.file, open_without=False)

    def token(self, *scopes, **options):
        text, token = make_token(scopes, **options)
        self.file.write([*self.file.read(), token])
        self.file.LOOK_EVERY = 0
        return {"authorization": f"Bearer {text}"}


@pytest.fixture
def guarded(tmp_path):
    return Guarded(tmp_path)


async def push(service, frames, headers):
    name = name_of(frames)
    return await service.client.post(
        f"/v1/sessions/{name}/frames",
        params={"offset": 0},
        content=joined(frames),
        headers={**TRACE, **headers},
    )


# what takes which scope: (method, path)
NEEDS = {
    ("GET", "/v1/sessions"): Scope.READ,
    ("GET", "/v1/sessions/{session}"): Scope.READ,
    ("GET", "/v1/sessions/{session}/frames"): Scope.READ,
    ("GET", "/v1/sessions/{session}/summary"): Scope.READ,
    ("GET", "/v1/sessions/{session}/export/jsonl"): Scope.READ,
    ("GET", "/v1/sessions/{session}/parquet/events"): Scope.READ,
    ("POST", "/v1/sessions/{session}/frames?offset=0"): Scope.INGEST,
    ("GET", "/v1/sources"): Scope.READ,
    ("POST", "/v1/sources/shop/commands"): Scope.CONTROL,
    ("POST", "/v1/agents/nobody"): Scope.INGEST,
    ("DELETE", "/v1/sessions/{session}"): Scope.ADMIN,
    ("GET", "/debug/tasks"): Scope.ADMIN,
    ("PUT", "/anything"): Scope.ADMIN,
}


@pytest.mark.parametrize("given", ALL)
async def test_each_scope_opens_what_it_says(tmp_path, guarded, given):
    frames = session(5, procs=1, name="shop")
    admin = guarded.token(Scope.ADMIN)
    mine = guarded.token(given)
    async with running(tmp_path, gate=guarded.gate) as service:
        assert (await push(service, frames, admin)).status_code == 200
        for (method, path), needed in NEEDS.items():
            where = path.format(session=name_of(frames))
            answer = await service.client.request(
                method, where, headers=mine, content=b"{}" if method == "POST" else None
            )
            if given in (needed, Scope.ADMIN):
                assert answer.status_code not in (401, 403), (method, path)
            else:
                problem(answer, 403, "scope-missing")


@pytest.mark.parametrize("method, path", NEEDS)
async def test_without_a_token_nothing_is_open(tmp_path, guarded, method, path):
    guarded.token(Scope.READ)
    async with running(tmp_path, gate=guarded.gate) as service:
        where = path.format(session="123e4567-e89b-42d3-a456-426614174000")
        answer = await service.client.request(method, where)
        problem(answer, 401, "token-wanted")
        assert answer.headers["www-authenticate"] == "Bearer"
        for headers in (
            {"authorization": "Bearer tsv_aaaaaaaa_" + "A" * 43},
            {"authorization": "Basic dTpw"},
            {"authorization": ""},
            {"cookie": "tracesvc=x"},
            {"cookie": '"; ;;='},
        ):
            answer = await service.client.request(method, where, headers=headers)
            assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/app.js", "/v1/whoami"])
async def test_what_tells_nothing_is_open(tmp_path, guarded, path):
    guarded.token(Scope.READ)
    async with running(tmp_path, gate=guarded.gate) as service:
        assert (await service.get(path)).status_code == 200


async def test_a_token_may_be_bound_to_sources(tmp_path, guarded):
    mine = guarded.token(*ALL[:3], prefix="shop")
    admin = guarded.token(Scope.ADMIN)
    async with running(tmp_path, gate=guarded.gate) as service:
        ours = session(5, procs=1, name="shop-north")
        theirs = session(5, procs=1, name="bank")
        assert (await push(service, ours, mine)).status_code == 200
        problem(await push(service, theirs, mine), 403, "source-forbidden")
        assert (await push(service, theirs, admin)).status_code == 200
        problem(await push(service, theirs, mine), 404, "unknown-session")

        def visible(answer):
            return [found["session"] for found in answer.json()["sessions"]]

        assert visible(await service.get("/v1/sessions", headers=mine)) == [name_of(ours)]
        assert len(visible(await service.get("/v1/sessions", headers=admin))) == 2
        for rest in ("", "/frames", "/summary", "/live", "/export/jsonl"):
            answer = await service.get(f"/v1/sessions/{name_of(theirs)}{rest}", headers=mine)
            problem(answer, 404, "unknown-session")
        answer = await service.get(
            f"/v1/sessions/{name_of(ours)}/diff?before={name_of(theirs)}", headers=mine
        )
        problem(answer, 404, "unknown-session")
        answer = await service.client.post(
            "/v1/sources/bank/commands", json={"do": "stop"}, headers=mine
        )
        problem(answer, 403, "source-forbidden")


async def test_a_stream_whose_source_cannot_be_told_is_for_nobody_in_particular(tmp_path, guarded):
    mine = guarded.token(Scope.INGEST, prefix="shop")
    async with running(tmp_path, gate=guarded.gate) as service:
        answer = await service.client.post(
            "/v1/sessions/123e4567-e89b-42d3-a456-426614174000/frames?offset=0",
            content=b"no frames at all" * 10,
            headers={**TRACE, **mine},
        )
        problem(answer, 403, "source-forbidden")


async def test_revoking_takes_effect(tmp_path, guarded):
    mine = guarded.token(Scope.READ)
    guarded.token(Scope.READ)
    async with running(tmp_path, gate=guarded.gate) as service:
        assert (await service.get("/v1/sessions", headers=mine)).status_code == 200
        guarded.file.write(guarded.file.read()[1:])
        problem(await service.get("/v1/sessions", headers=mine), 401, "bad-token")


async def test_a_file_that_breaks_leaves_what_held(tmp_path, guarded):
    mine = guarded.token(Scope.READ)
    async with running(tmp_path, gate=guarded.gate) as service:
        assert (await service.get("/v1/sessions", headers=mine)).status_code == 200
        guarded.file.path.write_text("{")
        assert (await service.get("/v1/sessions", headers=mine)).status_code == 200


async def test_on_this_machine_it_is_open_until_there_is_a_token(tmp_path, guarded):
    gate = Gate(guarded.file, open_without=True)
    async with running(tmp_path, gate=gate) as service:
        assert (await service.get("/v1/sessions")).status_code == 200
        assert (await service.get("/v1/whoami")).json()["scopes"] == sorted(ALL)
        guarded.token(Scope.READ)
        problem(await service.get("/v1/sessions"), 401, "token-wanted")


# --- the page ----------------------------------------------------------------------------------------


async def test_the_page_logs_in_with_a_cookie(tmp_path, guarded):
    mine = guarded.token(Scope.READ)["authorization"].split()[1]
    async with running(tmp_path, gate=guarded.gate) as service:
        problem(
            await service.client.post("/v1/login", json={"token": mine[:-1] + "x"}),
            401,
            "bad-token",
        )
        answer = await service.client.post("/v1/login", json={"token": mine})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secure" not in cookie  # it came by plain HTTP
        assert (await service.get("/v1/sessions")).status_code == 200  # the client keeps it
        assert (await service.get("/v1/whoami")).json() == {
            "tokens": True,
            "scopes": ["read"],
            "prefix": "",
        }
        assert (await service.client.post("/v1/logout")).status_code == 204
        problem(await service.get("/v1/sessions"), 401, "token-wanted")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": 1}', b'{"token": "a\\nb"}', b"{" * 4000])
async def test_a_wrong_login(tmp_path, guarded, body):
    guarded.token(Scope.READ)
    async with running(tmp_path, gate=guarded.gate) as service:
        problem(await service.client.post("/v1/login", content=body), 422, "bad-json")


# --- tokens by themselves ------------------------------------------------------------------------------


def test_only_a_digest_is_kept(tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    text, token = make_token([Scope.READ], note="ops")
    file.write([token])
    kept = file.path.read_text()
    assert text not in kept
    assert text.split("_")[2] not in kept
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.read() == [token]


def test_a_token_expires():
    text, token = make_token([Scope.READ], expires=1000, now=0)
    book = TokenBook([token])
    assert book.find(text, 999) == token
    assert book.find(text, 1000) is None


def test_those_of_the_environment():
    first, _ = make_token([])
    second, _ = make_token([])
    found = TokenBook(parse_tokens(f"ingest,read@shop {first} ; admin {second}\n"))
    assert found.find(first, 0).prefix == "shop"
    assert found.find(first, 0).scopes == {Scope.INGEST, Scope.READ}
    assert found.find(second, 0).scopes == {Scope.ADMIN}
    for wrong in ("admin", f"fly {first}", "admin tsv_short", f"admin {first} more"):
        with pytest.raises(TokenError, match="entry 1") as raised:
            parse_tokens(wrong)
        assert first not in str(raised.value)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"id": "x"}]', '[{"scopes": ["fly"]}]'])
def test_a_damaged_file_is_told(tmp_path, text):
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(TokenError):
        TokenFile(path).read()


# --- the whole service ---------------------------------------------------------------------------------


async def test_where_others_reach_it_there_is_a_token_from_the_start(tmp_path, caplog):
    async with trio.open_nursery() as nursery:
        stopping = trio.Event()

        async def up(task_status):
            config = Config(tmp_path, "0.0.0.0", 0)
            await serve(config, stopping=stopping, task_status=task_status)

        url = await nursery.start(up)
        port = url.rsplit(":", 1)[1]
        (text,) = (w for w in caplog.text.split() if w.startswith("tsv_"))
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/v1/sessions")).status_code == 401
            answer = await client.get("/v1/sessions", headers={"authorization": f"Bearer {text}"})
            assert answer.status_code == 200
        stopping.set()


async def test_insecure_says_so(tmp_path):
    async with trio.open_nursery() as nursery:
        stopping = trio.Event()

        async def up(task_status):
            config = Config(tmp_path, "0.0.0.0", 0, insecure=True)
            await serve(config, stopping=stopping, task_status=task_status)

        port = (await nursery.start(up)).rsplit(":", 1)[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/v1/sessions")).status_code == 200
        stopping.set()
    assert not (tmp_path / "tokens.json").exists()


async def test_tokens_that_cannot_be_read_stop_it_at_the_start(tmp_path):
    (tmp_path / "tokens.json").write_text("{")
    with pytest.RaisesGroup(
        pytest.RaisesExc(ServiceError, match="the tokens cannot be used"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: serve(Config(tmp_path, port=0), task_status=task_status)
            )


def certify(directory: Path, authority: trustme.CA) -> None:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "cert.pem").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))


def serial(port: int, authority: trustme.CA) -> int:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with httpx2.Client(verify=context) as client:
        assert client.get(f"https://127.0.0.1:{port}/healthz").status_code == 200
    return int(ssl.get_server_certificate(("127.0.0.1", port)).encode().hex(), 16)


@pytest.mark.parametrize("kind", ["anycorn", "hypercorn"])
def test_tls_and_a_new_certificate_at_sighup(tmp_path, kind):
    authority = trustme.CA()
    certify(tmp_path, authority)
    words = ["serve", "--listen", "127.0.0.1:0", "--data", tmp_path / "data", "--server", kind]
    words += ["--tls-certificate", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    service = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        url = service.stdout.readline().split()[-1]
        assert url.startswith("https://")
        port = int(url.rsplit(":", 1)[1])
        before = serial(port, authority)
        (tmp_path / "key.pem").write_text("nonsense")
        service.send_signal(signal.SIGHUP)
        assert "the old one is used on" in service.stderr.readline()
        assert serial(port, authority) == before
        certify(tmp_path, authority)
        service.send_signal(signal.SIGHUP)
        assert "the certificate was read again" in service.stderr.readline()
        assert serial(port, authority) != before
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
    finally:
        service.kill()
        service.communicate()


def test_the_command_makes_lists_and_revokes(tmp_path):
    def token(*words):
        done = run("token", *words, "--data", tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = token(
        "create", "--scope", "read", "--scope", "ingest", "--prefix", "shop", "--days", "1"
    ).strip()
    name = text.split("_")[1]
    listed = token("list")
    assert name in listed
    assert "ingest, read" in listed
    assert "shop*" in listed
    assert text not in listed
    token("revoke", name)
    assert name not in token("list")
    assert run("token", "revoke", name, "--data", tmp_path).returncode == 1
    printed = token("create", "--scope", "admin", "--print-only").strip()
    assert parse_tokens(f"admin {printed}")
    assert printed.split("_")[1] not in token("list")
