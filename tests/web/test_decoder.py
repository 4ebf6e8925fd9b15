"""The decoder of the page, written from the page about the format, gives what the Python reader gives."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

import tracesvc
from tests.golden.make import HERE as GOLDEN
from tests.judges import require_program
from tests.traces import program
from tests.web import traces
from tracesvc.format import Damage, StreamDecoder
from tracesvc.format.frames import FrameDecoder, uncompress

WEB = Path(tracesvc.__file__).parent / "web"
SCRIPT = """
import { readFileSync } from "node:fs";
import { StreamDecoder } from "./frames.js";
import { EVENTS } from "./vocabulary.js";
const decoder = new StreamDecoder(0, EVENTS), data = readFileSync(process.argv[2]), size = Number(process.argv[3]);
const told = (_, v) => (typeof v === "bigint" ? String(v) : typeof v === "number" && !Number.isFinite(v) ? String(v)
  : v instanceof Uint8Array ? { hex: Buffer.from(v).toString("hex") } : v);
for (let at = 0; at < data.length; at += size)
  for (const item of decoder.push(new Uint8Array(data.subarray(at, at + size))))
    if (item.batch) for (const event of item.batch.events())
      console.log(JSON.stringify({ ...event, time: String(event.time) }, told));
    else if (item.damage) console.log(JSON.stringify({ damage: [item.start, item.end] }));
"""


def plain(data):
    """The same stream without compression: what the service sends to the page."""
    decoder = FrameDecoder()
    decoder.feed(data)
    return b"".join(uncompress(f.data) for f in decoder if not isinstance(f, Damage))


def as_told(event):
    def value(v):
        if isinstance(v, bytes):
            return {"hex": v.hex()}
        if isinstance(v, float):
            return str(v) if not math.isfinite(v) else float(v)
        if isinstance(v, dict):
            return {k: value(x) for k, x in v.items()}
        if isinstance(v, tuple | list):
            return [value(x) for x in v]
        if isinstance(v, int) and not isinstance(v, bool) and abs(v) > 2**53 - 1:
            return str(v)
        return v

    fields = {f.name: value(getattr(event, f.name)) for f in event.fields}
    place = {"time": str(event.time), "proc": event.proc, "seq": event.seq}
    return {"type": event.type, **place, **fields}


def wanted(data):
    with tracesvc.read(data) as trace:
        return [as_told(event) for event in trace]


def by_node(tmp_path, data, size):
    node = require_program("node", package="nodejs")
    for name in ("frames.js", "msgpack.js", "vocabulary.js"):
        shutil.copy(WEB / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "read.js").write_text(SCRIPT)
    (tmp_path / "trace").write_bytes(data)
    command = [node, "read.js", "trace", str(size)]
    run = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def matrix():
    yield "a real program", lambda: traces.shop()[1], 1 << 20
    yield "odd names", lambda: traces.odd_names()[1], 777
    yield "random", lambda: program(21, events=4000, runs=3).data, 4096
    yield "lossy", lambda: traces.lossy()[1], 1 << 20
    for path in sorted(GOLDEN.glob("*.trace")):
        yield path.stem, path.read_bytes, 1000


MATRIX = list(matrix())


@pytest.mark.parametrize("name, make, size", MATRIX, ids=[row[0] for row in MATRIX])
def test_through_node(tmp_path, name, make, size):
    data = make()
    found = by_node(tmp_path, plain(data), size)
    assert found == wanted(data), name


def test_damage_is_found_where_it_is(tmp_path):
    stream = program(22, events=2000)
    data = bytearray(stream.data)
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    found = by_node(tmp_path, bytes(data), 900)
    decoder = StreamDecoder()
    decoder.feed(bytes(data))
    decoder.close()
    damages = [[d.start, d.end] for d in decoder if isinstance(d, Damage)]
    assert [one["damage"] for one in found if "damage" in one] == damages
    assert [one for one in found if "damage" not in one] == wanted(bytes(data))


def test_through_the_browser(tab):
    data = tab.open("shop", "/events")
    events = wanted(data)
    tab.until("n => globalThis.tracesvc?.view?.total === n", min(len(events), 4000))
    found = tab.ask("tracesvc.view.events.map(([, proc, seq, type]) => [proc, seq, type])")
    assert found == [[e["proc"], e["seq"], e["type"]] for e in events[:4000]]
    tab.page.get_by_label("Filter the events").fill("span_begin order")
    tab.until("document.querySelectorAll('.tail .log div').length === 48")
    first = tab.page.locator(".tail .log div").first.inner_text()
    assert 'name=order attributes={"number":' in first
