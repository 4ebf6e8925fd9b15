"""tail: a whole file, one that grows, and a service that comes and goes."""

import json
import signal

import pytest

from tests.analysis.streams import SESSION
from tests.cli.commands import failed, run, small, start
from tests.traces import program

TYPES = [
    "proc_start",
    "task_create",
    "step_start",
    "span_begin",
    "log",
    "counter",
    "span_end",
    "task_exit",
    "proc_stop",
]


def test_a_line_per_event(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(small().end(10_000).data)
    done = run("tail", path)
    assert (done.returncode, done.stderr) == (0, "")
    *events, end = done.stdout.splitlines()
    assert [line.split()[3] for line in events] == TYPES
    assert events[3].split(None, 4) == [
        "22:13:20.000003", "run", "1", "span_begin", "span=5  app[red] (1)  GET /  q=1"
    ]  # fmt: skip
    assert "END        9 events, 0 lost" in end


def test_losses_and_damage_are_told(tmp_path):
    hand = small().lose(1, 7, 9_000, 9_500)
    data = bytearray(hand.data + hand.writer.events(1, 16, [8, 9_600, 1, 0, 0])[-1].data)
    data[-1] ^= 1
    path = tmp_path / "app.trace"
    path.write_bytes(bytes(data) + small().end(1).frames[-1].data)
    done = run("tail", path)
    assert done.returncode == 1
    assert "LOST          7 events until 22:13:20.000009: queue full" in done.stdout
    assert "DAMAGE  bytes" in done.stdout


def test_json_has_every_field_of_every_event(tmp_path):
    stream = program(5, events=2000, losses=0.05)
    path = tmp_path / "made.trace"
    path.write_bytes(stream.data)
    rows = [json.loads(line) for line in run("tail", "--json", path).stdout.splitlines()]
    events = [row for row in rows if "seq" in row]
    assert [(r["type"], r["time"], r["proc"], r["seq"]) for r in events] == [
        (e.type, e.time, e.proc, e.seq) for e in stream.events
    ]
    assert all(
        row[f.name] == getattr(e, f.name)
        for row, e in zip(events, stream.events, strict=True)
        for f in e.fields
    )
    assert rows[-1]["type"] == "end"


def test_a_file_that_grows_is_followed_to_its_end(tmp_path):
    hand = small()
    path = tmp_path / "app.trace"
    with path.open("wb", buffering=0) as file:
        whole = hand.data
        file.write(whole[:-10])  # the last frame is not whole
        written = len(whole)
        tail = start("tail", path)
        try:
            file.write(whole[-10:])
            assert "proc_start" in tail.stdout.readline()  # it is there and has read what was there
            for line in TYPES[1:]:
                assert line in tail.stdout.readline()
            hand.events(2, ("proc_start", 9_000, 2, 3, "more"))
            file.write(hand.data[written:])
            written = len(hand.data)
            assert "thread 2" in tail.stdout.readline()
            hand.end(10_000)
            file.write(hand.data[written:])
            rest, errors = tail.communicate(timeout=30)
        finally:
            tail.kill()
    assert (tail.returncode, errors) == (0, "")
    assert "END" in rest


def test_without_follow_it_ends_where_the_data_end(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(small().data[:-10])  # the only batch is not whole
    done = run("tail", "--no-follow", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ctrl_c_is_how_following_ends(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(small().data)
    tail = start("tail", path)
    try:
        assert "proc_start" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        _, errors = tail.communicate(timeout=30)
    finally:
        tail.kill()
    assert (tail.returncode, errors) == (0, "")


# --- a service -----------------------------------------------------------------------------------


class Served:
    """``tracesvc serve`` as a process."""

    def __init__(self, data, port=0):
        self.process = start("serve", "--listen", f"127.0.0.1:{port}", "--data", data)
        line = self.process.stdout.readline()
        assert "listening on" in line, self.process.stderr.read()
        self.url = line.split()[-1]

    def push(self, session, data, offset=0):
        import httpx2

        answer = httpx2.post(
            f"{self.url}/v1/sessions/{session}/frames",
            params={"offset": offset},
            content=data,
            headers={"content-type": "application/vnd.tracesvc"},
        )
        assert answer.status_code < 300, answer.text

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.communicate(timeout=30)


@pytest.fixture
def served(tmp_path):
    service = Served(tmp_path / "data")
    yield service
    if service.process.returncode is None:
        service.stop()


def test_a_session_of_a_service_is_followed_over_its_restart(served, tmp_path):
    hand = small()
    first = hand.data
    served.push(SESSION, first)
    tail = start("tail", served.url)
    try:
        for line in TYPES:
            assert line in tail.stdout.readline()
        port = served.url.rsplit(":", 1)[1]
        served.stop(signal.SIGKILL)
        again = Served(tmp_path / "data", port)
        try:
            again.push(SESSION, hand.end(10_000).data[len(first) :], len(first))
            rest, errors = tail.communicate(timeout=30)
        finally:
            again.stop()
    finally:
        tail.kill()
    assert (tail.returncode, errors) == (0, "")
    assert rest.count("\n") == 1
    assert "END" in rest


def write(directory, data):
    path = directory / "copy.trace"
    path.write_bytes(data)
    return path


def test_the_sessions_of_a_service_are_listed_with_what_they_lost(served):
    hand = small().lose(1, 7, 9_000, 9_500)
    served.push(SESSION, hand.end(10_000).data)
    assert " 7 " in run("ls", served.url).stdout


def test_all_that_reads_a_file_reads_a_session(served, tmp_path):
    data = small().end(10_000).data
    served.push(SESSION, data)
    path = write(tmp_path, data)
    assert run("tail", f"{served.url}/{SESSION}").stdout == run("tail", path).stdout
    assert (
        run("tail", served.url, "--session", SESSION, "--no-follow").stdout
        == run("tail", path).stdout
    )
    assert run("summary", f"{served.url}/{SESSION}").stdout == run("summary", path).stdout
    assert run("verify", f"{served.url}/{SESSION}").stdout == run("verify", path).stdout
    (listed,) = json.loads(run("ls", "--json", served.url).stdout)
    assert (listed["trace"], listed["events"], listed["state"]) == (SESSION, 9, "ended")
    unknown = "00000000-0000-4000-8000-000000000000"
    assert "tracesvc: " in failed(run("tail", f"{served.url}/{unknown}"), 1)
    assert "tracesvc: " in failed(run("summary", f"{served.url}/{unknown}"), 1)


def test_a_session_that_a_service_has_is_proved_right_or_wrong(served, tmp_path):
    data = small().end(10_000).data
    served.push(SESSION, data)
    assert run("verify", f"{served.url}/{SESSION}").returncode == 0
    served.stop()
    (segment,) = (tmp_path / "data" / "sessions" / SESSION).glob("*.trace")
    segment.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    again = Served(tmp_path / "data")
    try:
        done = run("verify", f"{again.url}/{SESSION}")
        assert done.returncode == 1
        assert "violation" in done.stdout
        assert "no session" in failed(run("verify", f"{again.url}/{SESSION[:-1]}0"), 1)
    finally:
        again.stop()


def test_a_session_of_a_service_is_deleted_only_once_it_is_over_and_named(served):
    served.push(SESSION, small().data)
    assert "is live" in failed(run("rm", f"{served.url}/{SESSION}"), 1)
    served.push(SESSION, small().end(10_000).data)
    assert "name the session" in failed(run("rm", served.url), 2)
    assert "is no URL" in failed(run("rm", SESSION), 2)
    done = run("rm", f"{served.url}/{SESSION}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(run("ls", "--json", served.url).stdout) == []
    assert "there is no session" in failed(run("rm", f"{served.url}/{SESSION}"), 1)


def test_a_service_without_sessions(served):
    assert "has no session" in failed(run("tail", served.url), 1)
