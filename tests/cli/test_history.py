"""query --data: SQL over the sessions of a directory and of a service; whose rows one sees; what may not be asked."""

import json
import os
import shutil
from functools import partial

import pytest
import trio

from tests.cli.commands import COMMAND, ENVIRONMENT, failed, run
from tests.service.helpers import problem, running
from tests.streams import joined, name_of, session
from tests.traces import program
from tracesvc.analysis import QueryError, query
from tracesvc.cli.amounts import MOMENT
from tracesvc.cli.history import Directory, Selection
from tracesvc.cli.query import _of_many
from tracesvc.model.reader import read
from tracesvc.service.access import Gate
from tracesvc.service.tokens import Scope, TokenFile, make_token
from tracesvc.store.compacting import compact
from tracesvc.store.tables import found_tables

SQL = "select count(*) as n, sum(duration) as ns from waits"


def lay(root, *streams):
    """Sessions with tables, as a store has them; their names."""
    names = []
    for data in streams:
        name = read(data).session.id
        directory = root / "sessions" / name
        directory.mkdir(parents=True)
        (directory / "00000000000000000000.trace").write_bytes(data)
        compact(directory, name, len(data), directory)
        names.append(name)
    return names


def ask(data, sql, *words):
    done = run("query", "--data", data, sql, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A directory with four sessions of three programs, the last one without tables."""
    root = tmp_path_factory.mktemp("few")
    made = [session(30, name=name, start_wall=10**18 + i * 10**12) for i, name in enumerate("aab")]
    names = lay(root, *map(joined, made))
    last = session(30, name="c", start_wall=10**18 + 10**15)
    names += lay(root, joined(last))
    shutil.rmtree(root / "sessions" / name_of(last) / "parquet")
    return root, names


def test_totals_of_a_hundred_sessions_are_the_sums_of_what_each_says(tmp_path):
    streams = [program(seed, events=60).data for seed in range(100)]
    lay(tmp_path, *streams)
    alone = [query(read(data), SQL).rows[0] for data in streams]
    found = ask(tmp_path, SQL)
    assert found["rows"] == [{"n": sum(n for n, _ in alone), "ns": sum(ns or 0 for _, ns in alone)}]
    assert len(ask(tmp_path, "select distinct session from events")["rows"]) == 100


def test_sessions_without_tables_are_named_or_compacted_for_this_once(few):
    root, names = few
    sql = "select session from sessions order by started"
    found = ask(root, sql)
    assert [row["session"] for row in found["rows"]] == names[:3]
    assert found["missing"] == names[3:]
    told = run("query", "--data", root, sql)
    assert "1 sessions have no tables (yet) and are not in the answer; --compact makes some" in (
        told.stderr
    )
    assert names[3] in told.stderr
    found = ask(root, sql, "--compact")
    assert [row["session"] for row in found["rows"]] == names
    assert "missing" not in found
    assert not (root / "sessions" / names[3] / "parquet").exists()


@pytest.mark.parametrize(
    "which, chosen",
    [
        ({"source": "a"}, [0, 1]),
        ({"source": "b*"}, [2]),
        ({"source": "nobody"}, []),
        ({"since": "2001-09-09T02:00+00:00"}, [1, 2]),
        ({"until": "2001-09-09T02:00+00:00"}, [0]),
        ({"since": "1h"}, []),
    ],
    ids=range(6),
)
def test_only_files_of_the_sessions_that_are_meant_are_read(few, which, chosen):
    root, names = few
    times = {
        name: MOMENT.convert(text, None, None) for name, text in which.items() if name != "source"
    }
    selection = Selection(**{**which, **times})
    sql = "select distinct session from events"
    answer, _ = _of_many(Directory(root), selection, sql, 10, "500MB", None)
    assert {row[0] for row in answer.rows} == {names[i] for i in chosen}


def test_the_command_line_says_which_sessions_are_meant(few):
    root, names = few
    words = ("--source", "a", "--since", "2001-09-09T02:00+00:00", "--until", "1h")
    found = ask(root, "select distinct session from events", *words)
    assert found["rows"] == [{"session": names[1]}]


REACHING_OUT = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from '/etc/passwd'",
    "select * from glob('/*')",
    "select * from read_parquet('{file}')",
    "copy events to '/tmp/tracesvc-must-not-exist.csv'",
    "attach '/tmp/tracesvc-must-not-exist.db'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "pragma enable_external_access",
    "pragma database_list",
    "call pragma_version()",
    "export database '/tmp/tracesvc-must-not-exist'",
    "create table mine as select 1",
    "select 1; copy (select 1) to '/tmp/tracesvc-must-not-exist.csv'",
    "select * from files",
    "select * from connection",
    "",
]


@pytest.mark.parametrize("number", range(len(REACHING_OUT)))
def test_what_is_no_query_or_reaches_out_is_refused(few, number):
    root, _ = few
    (file,) = list(root.glob("sessions/*/parquet/*/events.parquet"))[:1]
    place = Directory(root)
    with pytest.raises(QueryError):
        _of_many(place, Selection(), REACHING_OUT[number].format(file=file), 10, "500MB", None)
    assert not any(os.path.exists(f"/tmp/tracesvc-must-not-exist{end}") for end in ("", ".csv"))  # noqa: PTH110


def test_damaged_tables_are_told_and_made_again(tmp_path):
    name, other = lay(tmp_path, program(1, events=300).data, program(2, events=300).data)
    (path,) = (tmp_path / "sessions" / name / "parquet").glob("*/waits.parquet")
    good = path.read_bytes()
    path.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    error = failed(run("query", "--data", tmp_path, "select sum(hash(w)) from waits w"), 1)
    assert f"table waits of session {name} is damaged" in error
    assert "waits.parquet: its bytes are not those" in run("store", "check", tmp_path).stdout
    done = run("store", "compact", tmp_path, "--check")
    assert done.returncode == 0, done.stderr
    assert "1 sessions compacted" in done.stdout
    assert path.read_bytes() == good
    assert run("store", "check", tmp_path).returncode == 0, "nothing else is wrong"
    assert len(ask(tmp_path, "select session from sessions")["rows"]) == 2
    assert other


class Deleting(Directory):
    """Somebody deletes a session between the look and the reading."""

    def __init__(self, root, victim):
        super().__init__(root)
        self.root, self.victim, self.looks = root, victim, 0

    def sessions(self, which):
        found = super().sessions(which)
        if not self.looks:
            shutil.rmtree(self.root / "sessions" / self.victim)
        self.looks += 1
        return found


def test_what_is_deleted_while_it_is_asked_is_not_in_the_answer(tmp_path):
    name, other = lay(tmp_path, program(1, events=300).data, program(2, events=300).data)
    place = Deleting(tmp_path, name)
    answer, missing = _of_many(place, Selection(), "select session from waits", 1000, "500MB", None)
    assert {row[0] for row in answer.rows} == {other}
    assert (missing, place.looks) == ([], 2)


@pytest.mark.parametrize(
    "words, why",
    [
        (("query", "--data", "{root}"), "Missing argument"),
        (("query", "--data", "{root}", "a.trace", "select 1"), "--data and SQL"),
        (("query", "a.trace", "select 1", "--since", "1h"), "go with --data"),
        (("query", "--data", "{root}", "select 1", "--since", "soon"), "is not like 12h"),
    ],
)
def test_wrong_usage_is_one_line(few, words, why):
    assert why in failed(run(*(word.format(root=few[0]) for word in words)), 2)


def test_what_is_no_data_directory_is_told(tmp_path):
    assert "is no data directory" in failed(run("query", "--data", tmp_path, "select 1"), 1)
    assert "is no bucket" in failed(run("query", "--data", "ftp://x/y", "select 1"), 1)


# --- a service -----------------------------------------------------------------------------------


async def command(*words, token=None):
    environment = {**ENVIRONMENT, **({"TRACESVC_TOKEN": token} if token else {})}
    return await trio.run_process(
        [*COMMAND, *map(str, words)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment,
    )


async def tabled(service, frames):
    """A session of the service that has tables."""
    name = await service.keep(frames)
    directory = service.store.root / "sessions" / name
    work = partial(compact, directory, name, len(joined(frames)), directory)
    found = await trio.to_thread.run_sync(work)
    await service.store.compaction_of().enter(found)
    return name


async def test_a_service_gives_the_tables_by_ranges_and_the_client_asks_them(tmp_path):
    async with running(tmp_path) as service:
        names = [await tabled(service, session(40, name=f"shop {i}")) for i in range(3)]
        bare = await service.keep(session(10, name="shop 9"))
        sql = "select session, count(*) as n from counters group by 1"
        done = await command("query", "--data", service.url, sql, "--json", "--source", "shop*")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {row["session"]: row["n"] for row in found["rows"]} == dict.fromkeys(names, 80)
        assert found["missing"] == [bare]
        done = await command("query", "--data", service.url, sql, "--json", "--compact")
        assert {row["session"]: row["n"] for row in json.loads(done.stdout)["rows"]} == {
            **dict.fromkeys(names, 80),
            bare: 20,
        }
        path = f"/v1/sessions/{names[0]}/parquet/events"
        whole = await service.get(path)
        assert (whole.status_code, whole.content[:4]) == (200, b"PAR1")
        tag, size = whole.headers["etag"], len(whole.content)
        for text, part in (
            ("bytes=0-3", slice(0, 4)),
            (f"bytes=10-{size + 5}", slice(10, None)),
            ("bytes=100-", slice(100, None)),
            ("bytes=-8", slice(-8, None)),
        ):
            answer = await service.get(path, headers={"range": text, "if-match": tag})
            assert (answer.status_code, answer.content) == (206, whole.content[part])
            assert answer.headers["content-range"].endswith(f"/{size}")
        answer = await service.get(path, headers={"range": "bytes=0-1,5-6"})
        assert (answer.status_code, answer.content) == (200, whole.content)
        problem(await service.get(path, headers={"range": f"bytes={size}-"}), 416, "no-such-range")
        problem(await service.get(path, headers={"if-match": '"x"'}), 412, "changed")
        problem(await service.get(f"/v1/sessions/{bare}/parquet/events"), 404, "no-tables")
        problem(await service.get(path.replace("events", "%2e%2e.")), 404, "no-tables")
        head = await service.client.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(size))
        shutil.rmtree(tmp_path / "sessions" / names[0] / "parquet")
        assert found_tables(tmp_path / "sessions" / names[0], 1) is None


async def test_nobody_sees_rows_of_sources_that_their_token_is_not_for(tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    texts = {}
    made = []
    for who, scopes, prefix in (
        ("all", [Scope.ADMIN], ""),
        ("shop", [Scope.READ], "shop"),
        ("ingest", [Scope.INGEST], ""),
    ):
        texts[who], token = make_token(scopes, prefix=prefix)
        made.append(token)
    file.write(made)
    async with running(tmp_path, gate=Gate(file, open_without=False)) as service:
        service.client.headers["authorization"] = f"Bearer {texts['all']}"
        shop = await tabled(service, session(20, name="shop 1"))
        bank = await tabled(service, session(20, name="bank"))
        for who, seen in (("all", {shop, bank}), ("shop", {shop})):
            for more in ((), ("--source", "bank"), ("--compact",))[: 1 if who == "all" else 3]:
                done = await command(
                    *("query", "--data", service.url, "select distinct session from events"),
                    *("--json", *more),
                    token=texts[who],
                )
                assert done.returncode == 0, done.stderr
                rows = {row["session"] for row in json.loads(done.stdout)["rows"]}
                assert rows == (seen & {bank} if "bank" in more else seen)
        headers = {"authorization": f"Bearer {texts['shop']}"}
        other = await service.get(f"/v1/sessions/{bank}/parquet/events", headers=headers)
        problem(other, 404, "unknown-session")
        done = await command("query", "--data", service.url, "select 1", token=texts["ingest"])
        assert b"scope read" in done.stderr
        done = await command("query", "--data", service.url, "select 1")
        assert b"a token is wanted" in done.stderr
