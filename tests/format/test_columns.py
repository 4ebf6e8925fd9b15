"""Columns of 64-bit values as byte planes."""

import re
import struct
import tracemalloc
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracesvc.format import FormatError
from tracesvc.format.columns import decode_column, encode_column

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
INTEGERS = st.integers(LOWEST, HIGHEST) | st.sampled_from(
    [0, 1, -1, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, LOWEST, HIGHEST]
)


def by_the_page(column, n):
    """The 8 bytes of each value, by the words of docs/format.md alone."""
    mask, rest, planes = column
    values = [[rest >> (8 * i) & 0xFF for i in range(8)] for _ in range(n)]
    at = 0
    for i in range(8):
        if mask >> i & 1:
            for value in values:
                value[i] = planes[at]
                at += 1
    assert at == len(planes)
    return [bytes(value) for value in values]


@given(st.lists(INTEGERS, max_size=60))
def test_integers_come_back(values):
    mask, rest, planes = encode_column(values)
    decoded = decode_column([mask, rest, planes], len(values))
    assert decoded.tolist() == values
    assert by_the_page((mask, rest, planes), len(values)) == [struct.pack("<q", v) for v in values]


@given(st.lists(st.floats(), max_size=60))
def test_doubles_come_back_bit_by_bit(values):
    column = encode_column(values, "d")
    wanted = [struct.pack("<d", v) for v in values]
    decoded = decode_column(list(column), len(values), "d")
    assert [struct.pack("<d", v) for v in decoded] == wanted
    assert by_the_page(column, len(values)) == wanted


@given(INTEGERS, st.integers(1, 1000))
def test_a_constant_column_has_no_planes(value, n):
    column = encode_column([value] * n)
    assert column == (0, value & (1 << 64) - 1, b"")
    assert decode_column(list(column), n).tolist() == [value] * n


@given(st.lists(st.integers(0, 255), min_size=2, max_size=50))
def test_small_numbers_cost_a_byte_each(values):
    assert len(encode_column(values)[2]) in (0, len(values))


def test_an_empty_column():
    assert encode_column([]) == encode_column([], "d") == (0, 0, b"")
    assert decode_column([0, 0, b""], 0).tolist() == []


@pytest.mark.parametrize(
    "values",
    [
        [LOWEST, HIGHEST],
        [HIGHEST, LOWEST, 0, -1],
        [0] * 500 + [LOWEST],
        [-1] * 10 + [0],
        [255, 256],
        [1 << 32, 0],
        [(1 << 32) - 1, 0],
        [0, 5, -5, 0],
        [7, 1, 7],
        list(range(65_536)),
    ],
)
def test_edges_come_back(values):
    assert decode_column(list(encode_column(values)), len(values)).tolist() == values


@pytest.mark.parametrize("value", [HIGHEST + 1, LOWEST - 1, 1 << 64, -(1 << 70)])
@pytest.mark.parametrize("others", [[], [0], [0, -1]])
def test_a_number_over_64_bits_is_refused(value, others):
    with pytest.raises(OverflowError, match="64 bits"):
        encode_column([*others, value])
    with pytest.raises(OverflowError, match="64 bits"):
        encode_column([value, *others])


def test_the_example_of_the_page():
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(
        r"^values  (.+?)   .*\nmask    (\d+).*\nrest    (\d+)\nplanes  ([0-9A-F ]+)$",
        page,
        re.MULTILINE,
    )
    assert found
    values = [int(v) for v in found[1].split(",")]
    column = int(found[2]), int(found[3]), bytes.fromhex(found[4])
    assert column == (3, 0, b"\x01\x02\x02\x00\x00\x01")
    assert encode_column(values) == column
    assert decode_column(list(column), 3) == array("q", values)


@pytest.mark.parametrize(
    "column",
    [
        None,
        7,
        b"",
        {},
        [],
        [0, 0],
        ["0", 0, b""],
        [0, None, b""],
        [0, 0, ""],
        [0, 0, None],
        [0.0, 0, b""],
        [True, 0, b"abc"],
        [-1, 0, bytes(24)],
        [256, 0, b""],
        [1 << 40, 0, b"abc"],
        [0, -1, b""],
        [0, 1 << 64, b""],
        [0, 0, b"a"],
        [1, 0, b""],
        [1, 0, b"ab"],
        [1, 0, b"abcd"],
        [255, 0, b"abc"],
    ],
)
def test_what_is_no_column_of_three_is_refused(column):
    with pytest.raises(FormatError, match="not a column"):
        decode_column(column, 3)


THINGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=30) | st.text(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)


@given(THINGS | st.lists(THINGS, min_size=3, max_size=4), st.integers(0, 40))
def test_anything_else_is_a_column_or_a_format_error(column, n):
    try:
        assert len(decode_column(column, n)) == n
    except FormatError:
        pass


def test_elements_of_a_newer_writer_are_passed_over():
    assert decode_column([1, 0, b"abc", "new", None], 3).tolist() == [97, 98, 99]


def test_a_mask_without_its_planes_allocates_nothing():
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            decode_column([255, 0, b"short"], 1 << 40)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()
