"""The tables that a store makes, and the same SQL on DuckDB and on a Spark cluster: ``make campaign-spark``.

    python -m tests.fleet.spark PYTHON

Programs are traced, a store takes their sessions and compacts them; `tracesvc query --data` answers, DuckDB by itself,
and Spark on a standalone cluster of a master and two workers of one core each, all of them processes, started with
PYTHON's pyspark.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

import tracesvc
from tests.cli.commands import run
from tests.fleet.servers import free_port
from tracesvc.model.schema import TABLES
from tracesvc.sinks.file import FileSink
from tracesvc.store import FileStore

SESSIONS = 6
QUERIES = {
    "how many": "select sum(events) as events, count(*) as sessions from sessions",
    "where time goes, per session": (
        "select session, reason, count(*) as n, sum(duration) as total from waits "
        "group by session, reason order by session, total desc, reason"
    ),
    "slowest spans of all": (
        "select session, name, span, duration from spans where duration is not null "
        "order by duration desc, session, span limit 20"
    ),
    "spans per second": (
        "select session, floor(start / 1000000000) as slot, count(*) as n, max(duration) as longest from spans "
        "where start is not null group by session, floor(start / 1000000000) order by session, slot"
    ),
    "between two steps": (
        "select session, count(*) as n, max(gap) as longest from (select session, start - lag(start) over "
        "(partition by session, task order by start) as gap from steps) t where gap is not null "
        "group by session order by session"
    ),
    "tasks and their waits": (
        "select t.session, t.name, count(*) as n, sum(w.duration) as total from tasks t join waits w "
        "on t.session = w.session and t.task = w.task "
        "group by t.session, t.name order by total desc, t.session, t.name limit 20"
    ),
}

ASK = """
import json, sys
from pyspark.sql import SparkSession
master, root, tables, queries = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
builder = SparkSession.builder.master(master).appName("tracesvc").config("spark.ui.enabled", "false")
for key, value in {"driver.bindAddress": "127.0.0.1", "driver.host": "127.0.0.1", "executor.memory": "600m",
                   "sql.shuffle.partitions": "4", "scheduler.minRegisteredResourcesRatio": "1.0"}.items():
    builder = builder.config("spark." + key, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
for table in tables:
    spark.read.parquet(f"{root}/sessions/*/parquet/v1-*/{table}.parquet").createOrReplaceTempView(table)
rows = {name: [list(row) for row in spark.sql(sql).collect()] for name, sql in queries.items()}
workers = spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1
print(json.dumps({"rows": rows, "executors": workers, "version": spark.version}))
spark.stop()
"""


async def program(n, path):
    async def work(i):
        for j in range(50):
            with tracesvc.span(f"order {i % 5}", n=j):
                await trio.sleep(0.001 * (1 + (i + j) % 7))

    async with (
        tracesvc.open_tracer(FileSink(path), name=f"shop {n}"),
        trio.open_nursery() as nursery,
    ):
        for i in range(20):
            nursery.start_soon(work, i)


def lay_out(root):
    """A data directory with the sessions, compacted."""
    paths = [root / f"{n}.trace" for n in range(SESSIONS)]
    for n, path in enumerate(paths):
        trio.run(program, n, path)

    async def take_in():
        async with FileStore.open(root / "data") as store:
            for path in paths:
                data = path.read_bytes()
                taken = await store.append(tracesvc.read(data).session.id, 0, data)
                assert taken.durable == len(data)

    trio.run(take_in)
    done = run("store", "compact", root / "data")
    assert done.returncode == 0, done.stderr
    return root / "data"


def by_tracesvc(fleet):
    rows = {}
    for name, sql in QUERIES.items():
        done = run("query", "--data", fleet, sql, "--json")
        assert done.returncode == 0, done.stderr
        rows[name] = [list(row.values()) for row in json.loads(done.stdout)["rows"]]
    return rows


def by_duckdb(fleet, tables):
    import duckdb

    with duckdb.connect() as connection:
        for table in tables:
            files = f"{fleet}/sessions/*/parquet/v1-*/{table}.parquet"
            connection.execute(f"create view {table} as select * from read_parquet('{files}')")
        return {name: connection.execute(sql).fetchall() for name, sql in QUERIES.items()}


def by_spark(python, fleet, tables, work):
    found = "import os, pyspark; print(os.path.dirname(pyspark.__file__))"
    home = subprocess.run([python, "-c", found], capture_output=True, text=True, check=True)
    spark = Path(home.stdout.strip())
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    env = {
        **os.environ,
        "SPARK_HOME": str(spark),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": python,
    }
    log = work / "spark.log"
    processes = []

    def start(*words):
        with log.open("ab") as out:
            command = [spark / "bin" / "spark-class", *words]
            processes.append(subprocess.Popen(command, env=env, stdout=out, stderr=out))

    def wait(text, times):
        deadline = time.monotonic() + 120
        while log.read_text().count(text) < times:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} is not in {log}: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    try:
        place = ["--host", "127.0.0.1", "--webui-port", "0"]
        start("org.apache.spark.deploy.master.Master", *place, "--port", str(port))
        wait("Starting Spark master", 1)
        for n in range(2):
            own = ["--cores", "1", "--memory", "1g", "--work-dir", str(work / f"worker{n}")]
            start("org.apache.spark.deploy.worker.Worker", *place, *own, master)
        wait("Successfully registered with master", 2)
        command = [python, "-c", ASK, master, str(fleet), json.dumps(tables), json.dumps(QUERIES)]
        began = time.monotonic()
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        return json.loads(done.stdout.splitlines()[-1]), time.monotonic() - began
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def plain(rows):
    """Numbers as floats where an engine says 3.0 for what another one calls 3."""
    return [[float(x) if isinstance(x, int | float) else x for x in row] for row in rows]


def main(python):
    if shutil.which("java") is None:
        raise SystemExit("needs a Java runtime: apt-get install default-jre-headless")
    with tempfile.TemporaryDirectory(prefix="tracesvc-spark-") as directory:
        work = Path(directory)
        fleet = lay_out(work)
        tables = [
            name
            for name in (*TABLES, "sessions")
            if any(re.search(rf"\b{name}\b", sql) for sql in QUERIES.values())
        ]
        here, ours = by_duckdb(fleet, tables), by_tracesvc(fleet)
        there, seconds = by_spark(python, fleet, tables, work)
    workers, bad = there["executors"], 0
    print(
        f"Spark {there['version']}, {workers} executors on 2 workers, {seconds:.1f} s with its start"
    )
    events = ours["how many"][0][0]
    print(f"{SESSIONS} sessions, {int(events):,} events")
    for name in QUERIES:
        same = plain(here[name]) == plain(there["rows"][name]) == plain(ours[name])
        bad += not same or not here[name]
        print(f"  {name:32} {len(here[name]):4} rows, {'equal' if same else 'DIFFERENT'}")
    sys.exit(1 if bad or workers != 2 else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
