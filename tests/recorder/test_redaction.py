"""What must not leave the program is in no byte of its trace."""

import re
import string

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

import tracesvc
from tests.recorder.recording import Memory, Recording, trace
from tracesvc import Redaction

KEY = b"a key of sixteen"
SECRET = "hunter2-4111111111111111"


class Shows:
    """An object whose repr says too much."""

    def __repr__(self) -> str:
        return f"<card {SECRET}>"


async def program() -> None:
    with (
        tracesvc.span(f"pay {SECRET}", password=SECRET, user_id=SECRET, card=Shows()),
        tracesvc.region("inside", Password=SECRET, note=f"it is {SECRET}"),
    ):
        tracesvc.log(f"paid with {SECRET}", api_token=SECRET, user_id=SECRET, amount=3)
        await trio.lowlevel.checkpoint()


REDACT = Redaction(
    drop=["password", "*token*"], hash=["user_id"], key=KEY, patterns=[r"hunter2-\d{13,19}"]
)


@pytest.mark.parametrize("sinks", [False, True], ids=["read", "sink"])
def test_no_byte_of_a_secret_is_in_the_trace(sinks):
    if sinks:
        memory = Memory()

        async def main() -> None:
            async with tracesvc.open_tracer(memory, redact=REDACT):
                await program()

        trio.run(main)
        recording = Recording(memory.data)
    else:
        recording = trace(program, redact=REDACT)
    assert b"hunter2" not in recording.data
    (log,) = recording.of("log")
    assert log.message == "paid with [redacted]"
    (span,), (region,) = recording.of("span_begin"), recording.of("region_begin")
    assert span.name == "pay [redacted]"
    assert region.attributes == {"note": "it is [redacted]"}
    assert span.attributes["card"] == "<card [redacted]>"
    assert span.attributes["user_id"] == log.attributes["user_id"]
    assert re.fullmatch("hash:[0-9a-f]{16}", log.attributes["user_id"])
    assert log.attributes.keys() == {"user_id", "amount"}


def test_what_is_open_when_the_tracer_starts_is_redacted_too():
    memory = Memory()

    async def main() -> None:
        with tracesvc.span("early", password=SECRET), tracesvc.region("early", user_id=SECRET):
            async with tracesvc.open_tracer(memory, redact=REDACT):
                await trio.lowlevel.checkpoint()

    trio.run(main)
    recording = Recording(memory.data)
    assert b"hunter2" not in memory.data
    assert [event.name for event in recording.of("span_begin", "region_begin")] == ["early"] * 2


def test_snapshots_have_what_was_recorded():
    memory = Memory()

    async def main() -> None:
        async with tracesvc.open_tracer(memory, redact=REDACT) as tracer:
            with tracesvc.span("long", user_id=SECRET):
                tracer.new_generation()
                await trio.lowlevel.checkpoint()

    trio.run(main)
    assert b"hunter2" not in memory.data
    Recording(memory.data)


def test_the_hash_goes_by_text_and_key():
    one, other = (Redaction(hash=["a"], key=key) for key in (KEY, KEY[::-1]))
    assert one.attributes({"a": 5}) == one.attributes({"a": "5"}) == one.attributes({"a": b"5"})
    assert one.attributes({"a": "x"}) != one.attributes({"a": "y"})
    assert one.attributes({"a": "x"}) != other.attributes({"a": "x"})


def test_dropped_goes_before_hashed():
    redaction = Redaction(drop=["user*"], hash=["user_id"], key=KEY)
    assert redaction.attributes({"user_id": 1, "b": 2}) == {"b": 2}


TEXT = st.text(alphabet=string.ascii_letters + string.digits + " ", max_size=40)


@given(before=TEXT, after=TEXT, name=TEXT)
def test_a_secret_is_found_wherever_it_stands(before, after, name):
    redaction = Redaction(patterns=["<[^>]*>"])
    text = redaction.text(f"{before}<secret>{after}")
    assert text == f"{before}[redacted]{after}"
    assert redaction.attributes({name: f"<{after}>"}) == {name: "[redacted]"}


def test_without_rules_for_texts_nothing_is_made_a_text():
    class Odd:
        pass

    thing = Odd()
    assert Redaction(drop=["a"]).attributes({"b": thing}) == {"b": thing}


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"hash": ["a"]}, "needs a key"),
        ({"hash": ["a"], "key": b"short"}, "16 to 64 bytes"),
        ({"key": b"x" * 65}, "16 to 64 bytes"),
        ({"drop": "password"}, "must be a list"),
    ],
)
def test_a_wrong_rule_is_refused_at_once(arguments, text):
    with pytest.raises(ValueError, match=text):
        Redaction(**arguments)


def test_a_wrong_pattern_is_refused_at_once():
    with pytest.raises(re.error):
        Redaction(patterns=["("])


def test_rules_of_another_kind_are_refused_at_once():
    with pytest.raises(TypeError, match=r"tracesvc\.Redaction"):
        tracesvc.open_tracer(Memory(), redact={"drop": ["password"]})


def test_the_key_is_not_shown():
    assert "sixteen" not in repr(REDACT)


def test_a_repr_that_raises_does_not_raise_into_the_program():
    class Bad:
        def __repr__(self) -> str:
            raise ValueError(SECRET)

    async def main() -> None:
        tracesvc.log("x", bad=Bad(), user_id=Bad())

    (log,) = trace(main, redact=REDACT).of("log")
    assert "its repr raised" in log.attributes["bad"]
