"""What an operator sees: metrics, logs, settings, the API's description, the service's own traces."""

import json
import re
import signal
import subprocess
import sys

import httpx2
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Mount, Route

from tests.cli.commands import COMMAND, ENVIRONMENT, failed, run
from tests.service.helpers import TRACE, problem, running
from tests.streams import joined, name_of, session
from tracesvc.model.verify import verify
from tracesvc.service.openapi import OPERATIONS, document


def figures(text):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_happens(tmp_path):
    async with running(tmp_path) as service:
        frames = session(20, procs=1, name="shop")
        name = await service.keep(frames)
        problem(await service.get("/v1/sessions/none"), 422, "bad-session-name")
        async with await service.raw(
            b"GET /v1/sources/x/agent HTTP/1.1\r\nHost: x\r\n\r\n"
        ) as stream:
            await stream.receive_some()
            answer = await service.get("/metrics")
        found = figures(answer.text)
        assert found["tracesvc_ingested_bytes_total",] == len(joined(frames))
        assert found["tracesvc_requests_total", "200", "ingest"] == 1
        assert found["tracesvc_refusals_total", "bad-session-name"] == 1
        assert found["tracesvc_sessions", "ended"] == 1
        assert found["tracesvc_stored", "bytes"] == len(joined(frames))
        assert found["tracesvc_agents",] == 1
        assert found["tracesvc_followers",] == 0
        assert found["tracesvc_disk_free_bytes",] > 0
        assert found["tracesvc_open_files",] > 0
        assert name


async def test_followers_are_counted_while_they_follow(tmp_path):
    async with running(tmp_path) as service:
        name = await service.keep(session(20, procs=1, name="shop")[:-1])
        path = f"/v1/sessions/{name}/frames?follow=true"
        async with await service.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as stream:
            await stream.receive_some()
            assert figures((await service.get("/metrics")).text)["tracesvc_followers",] == 1
        while figures((await service.get("/metrics")).text)["tracesvc_followers",]:
            await trio.lowlevel.checkpoint()


# --- the description -----------------------------------------------------------------------------------


async def test_every_route_is_described(tmp_path):
    from tracesvc.service import Config, make_app

    app = make_app(None, Config(tmp_path), trio.Event())
    routed = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and not re.fullmatch(r"/(\{file\})?", route.path)
        for method in route.methods - {"HEAD"}
    }
    assert {route.path for route in app.routes if isinstance(route, Mount)} == {"/debug"}
    assert routed == {(op.method, op.path) for op in OPERATIONS}


async def test_it_is_served(tmp_path):
    async with running(tmp_path) as service:
        assert (await service.get("/openapi.json")).json() == json.loads(json.dumps(document()))


CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,negative_data_rejection,unsupported_method"
)


def test_the_service_is_as_it_is_described(tmp_path):
    """schemathesis asks it everything that the description allows, and much that it does not."""
    (tmp_path / "work").mkdir()
    with serving(tmp_path) as (process, url):
        frames = session(200, procs=2, name="shop")
        pushed = httpx2.post(
            f"{url}/v1/sessions/{name_of(frames)}/frames?offset=0",
            content=joined(frames),
            headers=TRACE,
        )
        assert pushed.status_code == 200
        (tmp_path / "work" / "schemathesis.toml").write_text(
            f'[parameters]\nsession = "{name_of(frames)}"\nformat = "jsonl"\nbefore = "{name_of(frames)}"\n'
        )
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
                *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "-n", "10"),
                *("--exclude-path-regex", "agent$", "--exclude-method", "DELETE"),
                *("--exclude-operation-id", "post-v1-sessions-{session}-frames", "--no-color"),
                *("--seed", "1"),
            ],
            cwd=tmp_path / "work",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


# --- settings --------------------------------------------------------------------------------------------


class serving:  # noqa: N801  a context manager
    """The service as a process: (process, url)."""

    def __init__(self, tmp_path, *words, **variables):
        self._words = ["serve", "--listen", "127.0.0.1:0", "--data", tmp_path / "data", *words]
        self._variables = variables

    def __enter__(self):
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, self._words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, **self._variables},
        )
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        return self.process, line.split()[-1]

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


def checked(*words, **variables):
    done = subprocess.run(
        [*COMMAND, "serve", "--check", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, **variables},
    )
    assert done.returncode == 0, done.stderr
    lines = (line.rsplit("  (", 1) for line in done.stdout.splitlines())
    return {
        what.split(" = ")[0]: (what.split(" = ")[1], where.rstrip(")")) for what, where in lines
    }


def test_flags_before_environment_before_file_before_defaults(tmp_path):
    file = tmp_path / "tracesvc.toml"
    file.write_text('listen = "127.0.0.1:1111"\nmax_body = 1000\nbody_timeout = 7.0\nkeep = "1d"\n')
    found = checked(
        *("--config", file, "--listen", "127.0.0.1:3333", "--data", tmp_path),
        TRACESVC_SERVE_LISTEN="127.0.0.1:2222",
        TRACESVC_SERVE_MAX_BODY="2000",
    )
    assert found["listen"] == ("127.0.0.1:3333", "flag")
    assert found["max_body"] == ("2000", "environment")
    assert found["body_timeout"] == ("7.0", "file")
    assert found["keep"] == ("86400.0", "file")
    assert found["grace"] == ("5.0", "default")


@pytest.mark.parametrize(
    "text, said",
    [
        ("nonsense", "is no TOML"),
        ("no_such_setting = 1", "there is no setting 'no_such_setting'"),
        ('listen = "nowhere"', "an address to listen on is HOST:PORT"),
        ("max_body = -1", "max_body"),
        ('config = "x"', "there is no setting 'config'"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, said):
    file = tmp_path / "tracesvc.toml"
    file.write_text(text)
    line = failed(run("serve", "--check", "--config", file), 2)
    assert said in line.replace("-", "_") or said in line


def test_check_looks_at_certificate_and_tokens(tmp_path):
    line = failed(run("serve", "--check", "--tls-certificate", "none", "--tls-key", "none"), 1)
    assert "cannot be used" in line
    failed(run("serve", "--check", "--tls-certificate", "none"), 2)
    (tmp_path / "tokens.json").write_text("{")
    assert "tokens" in failed(run("serve", "--check", "--data", tmp_path), 1)


def test_the_log_may_be_json(tmp_path):
    with serving(tmp_path, "--log", "json", "--listen", "0.0.0.0:0") as (process, _):
        line = json.loads(process.stderr.readline())
    assert line["level"] == "warning"
    assert line["logger"] == "tracesvc.service"
    assert "tsv_" in line["message"]
    assert {"time"} <= line.keys()


# --- the service's own traces ------------------------------------------------------------------------------


def test_the_service_traces_itself(tmp_path):
    def get(url):
        return httpx2.get(url).raise_for_status().content

    with serving(tmp_path) as (process, url):
        assert b"anycorn" in get(f"{url}/debug/tasks")
        assert verify(get(f"{url}/debug/trace?seconds=0.2")).ok
        assert verify(get(f"{url}/debug/flight")).ok
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, process.stderr.read()


def test_every_setting_says_what_it_is():
    from tracesvc.cli.serve import command

    for option in command.params:
        assert getattr(option, "help", None), option.name
    told = run("serve", "--help").stdout
    assert "finished sessions become tables" in " ".join(told.split())
