"""Records of bytes, against the same written one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracesvc.export.wire import Nested, Raw, Records, Some, join, varint

NUMBERS = st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 300), min_size=1, max_size=40)


@given(st.integers(0, (1 << 64) - 1))
def test_a_varint_says_its_number(value):
    data = varint(value)
    assert sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data)) == value
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]
    assert len(data) == max(1, -(-value.bit_length() // 7))


def test_negative_numbers_are_written_as_their_bits():
    assert varint(-1) == varint((1 << 64) - 1)


def sized(data):
    return varint(len(data)) + data


@given(NUMBERS, st.data())
def test_many_records_are_the_bytes_of_each(numbers, data):
    n = len(numbers)
    values = np.array(numbers, np.uint64)
    texts = data.draw(st.lists(st.binary(max_size=200), min_size=n, max_size=n))
    where = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    raw = np.arange(3 * n, dtype=np.uint8).reshape(n, 3)

    def shape():
        inner = Nested(b"\x12", texts, Nested(values, Some(where, raw)))
        return Records(n, b"\x0a\xff", values, Nested(inner, b"!", tag=b"\x22"), Raw(raw))

    wanted = []
    for number, text, some, row in zip(numbers, texts, where, raw, strict=True):
        deepest = varint(number) + (row.tobytes() if some else b"")
        inner = b"\x12" + text + sized(deepest)
        wanted.append(
            b"\x0a\xff" + varint(number) + b"\x22" + sized(sized(inner) + b"!") + row.tobytes()
        )
    assert shape().tobytes() == b"".join(wanted)
    assert shape().widths.tolist() == list(map(len, wanted))
    # The same, between records of another shape.
    others = Records(n, b"-", np.arange(n))
    places = 2 * np.arange(n)
    mixed = join([(places, shape()), (places + 1, others)], 2 * n)
    assert mixed == b"".join(record + b"-" + varint(i) for i, record in enumerate(wanted))


def test_blocks_make_no_difference():
    values = np.arange(20_000, dtype=np.int64) ** 2
    assert Records(len(values), b"x", values).tobytes() == b"".join(
        b"x" + varint(v) for v in values.tolist()
    )


def test_nothing_is_nothing():
    assert Records(0, b"x", np.zeros(0, np.int64)).tobytes() == b""
    assert join([], 0) == b""
