"""Damaged and hostile bytes into the decoders, by the million; requests that no client of ours sends, by the thousand.

    python -m benchmarks.campaigns fuzz --times 10000000

An input is made of one from the pool by a few mutations: of bytes, or of the values in a frame's body, after which its
length and checksum are put right, so that what lies behind them is reached as well.  `judge` puts it through every
decoder and tells what came of it.  What gives something that nothing before it gave joins the pool (so the inputs work
their way inwards), and the corpus, which the tests judge again with every run.
"""

from __future__ import annotations

import random
import re
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.pushing import Program, Scene
from tracesvc.events import FrameKind
from tracesvc.format import (
    Batch,
    Damage,
    FormatError,
    Frame,
    FrameDecoder,
    Item,
    StreamDecoder,
    compress,
)
from tracesvc.format.bulk import Bulk
from tracesvc.format.frames import HEADER_SIZE, MARKER, MAX_FRAME, encode_frame, parse_header
from tracesvc.format.native import frames as native
from tracesvc.store.intake import Tail, check, walk
from tracesvc.store.ledger import Ledger

__all__ = ["CORPUS", "Mutator", "decoders", "judge", "seeds"]

ROOT: Final = Path(__file__).parents[1]
CORPUS: Final = ROOT / "tests" / "format" / "corpus"
EVENTS: Final = int(FrameKind.EVENTS)
SESSION: Final = "00000000-0000-4000-8000-000000000001"
POOL: Final = 4000
"""inputs that others are made of, at most"""
LARGEST: Final = 8192
"""bytes of an input, at most"""
SMALL: Final = 4096
"""bytes of what is kept in the corpus"""
_KNOWN: Final = frozenset(map(int, FrameKind))
_VARIES: Final = re.compile(r"[0-9a-f-]{36}|0x[0-9a-f]+|-?\d[\d,.]*|'[^']*'|element . is \w+")

Kinds = frozenset[str]


def _kind(text: object) -> str:
    """A message without what differs from input to input."""
    return _VARIES.sub("#", str(text))[:60]


def judge(data: bytes) -> Kinds:
    """Put ``data`` through every decoder; what kinds of things came of it.

    Raises:
      AssertionError: two of them do not agree, or one breaks its word.
      Exception: one raised what it does not declare.
    """
    seen: set[str] = set()
    frames = _frames(data, seen)
    rows, why = walk(memoryview(data), EVENTS, MAX_FRAME)
    seen.add(f"walk {why} {min(len(rows), 2)}")
    if native is not None:
        _alike(native.walk(memoryview(data), EVENTS, MAX_FRAME), (rows, why), data)
    tail = Tail(SESSION, Ledger())
    if rows and rows[0][0] != FrameKind.HEADER:
        tail.last = max(0, rows[0][2] - 1)  # as if the frames before were there
    piece = check(memoryview(data), tail)
    assert piece is not None
    assert piece.size <= (rows[-1][5] if rows else 0), "more was taken than there is"
    seen |= {f"{min(len(piece.records), 2)} taken", f"refused: {_kind(piece.problem)}"}
    if frames:
        _records(data, seen)
    return frozenset(seen)


def _frames(data: bytes, seen: set[str]) -> list[Frame]:
    """All that comes out of a `FrameDecoder` is all that went in, however it is cut."""
    decoder = FrameDecoder()
    decoder.feed(data)
    decoder.close()
    items = list(decoder)
    at, frames = 0, []
    for item in items:
        if isinstance(item, Damage):
            assert item.start == at < item.end, "damage is out of place"
            seen.add(f"damage {item.reason}")
            at = item.end
        else:
            assert item.offset == at, "a frame is out of place"
            assert item.data == data[at : item.end], "a frame is not what lay there"
            kind = item.kind if item.kind in _KNOWN else "?"
            seen.add(f"frame {kind}, flags {min(item.data[7], 2)}")
            frames.append(item)
            at = item.end
    assert at == len(data), "bytes were passed over"
    decoder = FrameDecoder()
    in_pieces: list[Frame | Damage] = []
    cut = zlib.crc32(data) % (len(data) + 1)
    for part in (data[:cut], data[cut:]):
        decoder.feed(part)
        in_pieces += decoder
    decoder.close()
    in_pieces += decoder
    assert [i for i in in_pieces if isinstance(i, Frame)] == frames, "it matters how it is cut"
    return frames


def _alike(found: tuple[list[Any], int], expected: tuple[list[Any], int], data: bytes) -> None:
    """The native walk joins EVENTS frames that follow one another; else both are the same."""
    apart: list[Any] = []
    for kind, flags, number, last, start, end, frames, seen in found[0]:
        if frames == 1:
            apart.append((kind, flags, number, last, start, end, 1, None))
            continue
        assert kind == EVENTS
        assert seen is not None
        inner, _ = walk(memoryview(data)[start:end], EVENTS, MAX_FRAME)
        assert (len(inner), inner[0][2], inner[-1][2]) == (frames, number, last)
        apart += [(*row[:4], start + row[4], start + row[5], 1, None) for row in inner]
    assert (apart, found[1]) == expected, "the native walk and its twin do not agree"


def _records(data: bytes, seen: set[str]) -> None:
    """Records and events: right, or a `FormatError`."""
    decoder = StreamDecoder()
    decoder.feed(data)
    decoder.close()
    for item in decoder:
        if isinstance(item, Damage):
            seen.add(f"record {_kind(item.reason)}")
            continue
        assert isinstance(item, Item)
        seen.add(f"record {type(item.record).__name__}")
        if not isinstance(item.record, Batch):
            continue
        batch = item.record
        ways: tuple[Callable[[], object], ...] = (
            lambda batch=batch: len(list(decoder.events(batch))),  # type: ignore[misc]
            batch.check,
            lambda batch=batch: Bulk([batch, batch]),  # type: ignore[misc]
        )
        good = []
        for way, look in enumerate(ways):
            try:
                look()
            except FormatError as exc:
                seen.add(f"batch {way} {_kind(exc)}")
                good.append(False)
            else:
                good.append(True)
        seen.add(f"batch {good}")
        if native is not None:
            glance = native.glance(bytes(item.frame.content()))
            told = batch.proc, batch.first, batch.count
            assert glance is None or glance == told, "a glance and a look differ"


# --- what inputs are made of ---------------------------------------------------------------------


def seeds() -> list[bytes]:
    """Streams and frames of every kind that are right."""
    program = Program([Scene(40, 1), Scene(8, 2)], "fuzz", SESSION)
    streams = [program.begin(), program.play(0), program.generation(), program.play(1)]
    streams.append(program.end())
    for path in sorted((ROOT / "tests" / "golden").glob("*.trace")):
        decoder = FrameDecoder()
        decoder.feed(path.read_bytes())
        streams += [item.data for item in decoder if isinstance(item, Frame)]
    small = [stream for stream in streams if len(stream) <= LARGEST]
    return [*small, *(compress(stream) for stream in small if parse_header(stream) is not None)]


VALUES: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 31, 127, 128, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 32, (1 << 62) - 1, 1 << 62),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.0, -1.5, float("nan"), float("inf")),
    *(None, True, False, "", "x", "\udcff".encode("utf-8", "surrogatepass"), b"", b"\xff" * 8),
    *([], [0], [[]], [None] * 5, {}, {1: 2}, {"": None}, [[[[[[]]]]]]),
)
NUMBERS: Final = (b"\x00" * 4, b"\xff" * 4, b"\x00\x00\x00\x01", b"\x00\x08\x00\x00", b"\x7f" * 4)


class Mutator:
    """Makes inputs of inputs."""

    def __init__(self, seed: int, pool: list[bytes]) -> None:
        self._chance = random.Random(seed)
        self.pool = pool

    def make(self) -> bytes:
        """One more."""
        chance = self._chance
        data = bytearray(chance.choice(self.pool))
        roll = chance.random()
        if roll < 0.15:
            data = self._value(data)
        else:
            for _ in range(chance.randrange(1, 5)):
                data = self._bytes(data)
            if roll < 0.35:
                self._put_right(data)
        if roll > 0.9:
            data += chance.choice(self.pool)
        return bytes(data[:LARGEST])

    def _bytes(self, data: bytearray) -> bytearray:
        chance = self._chance
        if not data:
            return bytearray(chance.randbytes(chance.randrange(64)))
        at = int(chance.random() * len(data))
        match chance.randrange(9):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                del data[at : at + chance.randrange(1, 32)]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 16))
            case 4:
                data[at : at + 4] = chance.choice(NUMBERS)
            case 5:
                end = at + chance.randrange(1, 64)
                data[at:at] = data[at:end]
            case 6:
                del data[at:]
            case 7:
                other = chance.choice(self.pool)
                there = chance.randrange(len(other) + 1)
                data[at:] = other[there:]
            case _:
                head = min(at, HEADER_SIZE - 1) if len(data) >= HEADER_SIZE else at
                data[head] = chance.randrange(256)
        return data

    def _put_right(self, data: bytearray) -> None:
        """Length and checksum of the first frame."""
        if len(data) < HEADER_SIZE:
            return
        data[:6], data[8], data[13], data[18] = MARKER, 0xCE, 0xCE, 0xC6
        data[6] &= 0x7F
        data[7] &= 0x03
        most = len(data) - HEADER_SIZE
        length = int.from_bytes(data[19:23], "big")
        if length > most or self._chance.random() < 0.5:
            data[19:23] = (length := most).to_bytes(4, "big")
        end = HEADER_SIZE + length
        data[14:18] = zlib.crc32(data[18:end], zlib.crc32(data[6:13])).to_bytes(4, "big")

    def _value(self, data: bytearray) -> bytearray:
        """Another value somewhere in the body of a frame, and all else right."""
        chance = self._chance
        decoder = FrameDecoder()
        decoder.feed(data)
        frames = [item for item in decoder if isinstance(item, Frame)]
        if not frames:
            return self._bytes(data)
        frame = chance.choice(frames)
        try:
            body = frame.body()
        except FormatError:
            return self._bytes(data)
        for _ in range(chance.randrange(1, 4)):
            body = self._elsewhere(body)
        kind = frame.kind if chance.random() < 0.95 else chance.randrange(12)
        try:
            other: Any = kind
            made = encode_frame(other, frame.number, body)
        except (FormatError, ValueError, TypeError, OverflowError):
            return self._bytes(data)
        if chance.random() < 0.1:
            made = compress(made, 1)
        return data[: frame.offset] + made + data[frame.end :]

    def _elsewhere(self, value: Any) -> Any:
        chance = self._chance
        if isinstance(value, list) and value and chance.random() < 0.85:
            at = chance.randrange(len(value))
            match chance.randrange(8):
                case 0:
                    return value[:at] + value[at + 1 :]
                case 1:
                    return [*value[:at], value[at], *value[at:]]
                case _:
                    return [*value[:at], self._elsewhere(value[at]), *value[at + 1 :]]
        if isinstance(value, bytes) and value and chance.random() < 0.7:
            return bytes(self._bytes(bytearray(value)))
        if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.6:
            changed = value + chance.choice((-1, 1, 2, 256, -value - 1, value))
            return changed if -(1 << 63) <= changed < 1 << 64 else 0
        return chance.choice(VALUES)


# --- the campaign --------------------------------------------------------------------------------


def decoders(
    inputs: int, seed: int = 1, corpus: Path | None = None, tell: float = 60.0
) -> dict[str, Any]:
    """So many inputs into the decoders; the figures.  What is new, also to `CORPUS`, or fails, goes into ``corpus``."""
    known = [path.read_bytes() for path in sorted(CORPUS.glob("*"))]
    mutator = Mutator(seed, [*seeds(), *known])
    kinds: set[str] = set()
    for data in mutator.pool:
        kinds |= judge(data)
    failures = made_bytes = new = 0
    began = told = time.monotonic()
    processor = time.process_time()
    for i in range(inputs):
        data = mutator.make()
        made_bytes += len(data)
        try:
            found = judge(data)
        except Exception as exc:
            failures += 1
            print(f"FAILED: {exc!r}: {data.hex()[:400]}", file=sys.stderr, flush=True)
            _keep(corpus, "failed", data)
            continue
        if not found <= kinds:
            kinds |= found
            new += 1
            _keep(corpus, "new", data)
            if len(mutator.pool) < POOL:
                mutator.pool.append(data)
        now = time.monotonic() if i % 1024 == 0 else told
        if now > told + tell:
            told = now
            print(
                f"  {i:,} inputs, {len(kinds)} kinds, {failures} failures",
                file=sys.stderr,
                flush=True,
            )
    return {
        "inputs": inputs,
        "bytes": made_bytes,
        "kinds": len(kinds),
        "new": new,
        "failures": failures,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - processor,
    }


def _keep(corpus: Path | None, why: str, data: bytes) -> None:
    if corpus is not None and (why == "failed" or len(data) <= SMALL):
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / f"{why}-{zlib.crc32(data):08x}").write_bytes(data)
