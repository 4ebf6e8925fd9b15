"""The picture: well-formed whatever the names, hatched where events are missing, rendered the same as PNG."""

import io
import struct
import zlib
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.analysis.streams import Hand
from tests.cli.commands import run
from tests.export.conftest import damaged
from tests.traces import program
from tracesvc.model import read
from tracesvc.plot import plot
from tracesvc.plot.kinds import Kind
from tracesvc.plot.picture import has_font
from tracesvc.plot.svg import LEFT

SVG = "{http://www.w3.org/2000/svg}"
LOSSY = program(7, events=2000, losses=0.2).data


def parsed(svg):
    return ET.fromstring(svg)


def pixels(png):
    """A PNG as an array, by nothing but zlib."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    file, data = io.BytesIO(png[8:]), b""
    while head := file.read(8):
        size, kind = struct.unpack(">I4s", head)
        body = file.read(size + 4)[:-4]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        elif kind == b"IDAT":
            data += body
    channels = {2: 3, 6: 4}[colour]
    assert depth == 8
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    out = np.zeros((height, width * channels), np.int64)
    for y in range(height):
        _unfilter(raw[y, 0], raw[y, 1:].astype(np.int64), out, y, channels)
    return out.reshape(height, width, channels)


def _unfilter(kind, line, out, y, step):
    above = out[y - 1] if y else np.zeros_like(line)
    if kind in (0, 2):
        out[y] = (line + (above if kind == 2 else 0)) % 256
        return
    for x in range(len(line)):
        left = out[y, x - step] if x >= step else 0
        corner = above[x - step] if x >= step else 0
        up = above[x]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            p = left + up - corner
            guess = min((left, up, corner), key=lambda v: abs(p - v))
        out[y, x] = (line[x] + guess) % 256


def one_task():
    hand = Hand().generation(0)
    return (
        hand.events(
            1,
            ("proc_start", 0, 1, 1, "run"),
            ("task_create", 0, 1, 0, 0, "<a & b>\x00\x1b\ufffe", ""),
            ("step_start", 250, 1),
            ("step_block", 500, 1, 4, 7),
        )
        .end(1000)
        .data
    )


def test_names_that_are_no_xml():
    svg = plot(read(one_task()), columns=100).svg
    texts = [text.text for text in parsed(svg).iter(f"{SVG}text")]
    assert "<a & b>\ufffd\ufffd\ufffd (1)" in texts
    svg.encode()


def test_a_png_shows_the_colours_where_they_belong():
    picture = plot(read(one_task()), columns=100)
    image = pixels(picture.png(zoom=1))
    row = next(y for y in range(len(image)) if tuple(image[y, LEFT + 10, :3]) == rgb(Kind.RUNNABLE))
    seen = [tuple(image[row + 5, LEFT + x, :3].tolist()) for x in (10, 40, 60, 95)]
    kinds = (Kind.RUNNABLE, Kind.RUNNING, Kind.LOCK, Kind.LOCK)
    assert seen == [rgb(kind) for kind in kinds]
    assert has_font()


def rgb(kind):
    return tuple(bytes.fromhex(kind.colour[1:]))


def test_losses_are_hatched_and_told():
    svg = plot(read(LOSSY)).svg
    assert 'fill="url(#lost)"' in svg
    titles = [title.text for title in parsed(svg).iter(f"{SVG}title")]
    assert any("events lost: queue full" in title for title in titles)
    assert "events of the trace are missing" in svg
    whole = plot(read(program(7, events=500).data)).svg
    assert 'fill="url(#lost)"' not in whole
    assert "missing" not in whole


@pytest.mark.parametrize("seed", range(6))
def test_damage(seed):
    svg = plot(read(damaged(LOSSY, seed))).svg
    parsed(svg)
    assert "bytes of the trace are damaged" in svg


def test_a_trace_without_tasks():
    svg = plot(read(Hand().generation(0).end(10).data)).svg
    assert "no task lived then" in svg
    parsed(svg)


def test_the_command(tmp_path):
    trace = tmp_path / "app.trace"
    trace.write_bytes(LOSSY)
    for name, begin in (("a.svg", b"<svg "), ("a.png", b"\x89PNG")):
        done = run("plot", trace, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "events are missing" in done.stderr
        assert (tmp_path / name).read_bytes().startswith(begin)
    part = run("plot", trace, "-o", "-", "--from", "100ms", "--to", "200ms")
    assert part.returncode == 0
    parsed(part.stdout)
    for wrong in (["-o", "a.gif"], ["--from", "2s", "--to", "1s"], ["--from", "nonsense"]):
        done = run("plot", trace, *wrong)
        assert (done.returncode, done.stdout) == (2, "")
