"""Who cancelled whom, and why: in generated nests of scopes and nurseries, against what the program itself knows."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import HealthCheck, given, settings
from trio.testing import MockClock

import tracesvc
from tests.recorder.recording import Memory, trace
from tracesvc.events import CancelSource, Outcome
from tracesvc.recorder.identity import number_of
from tracesvc.recorder.structure import TAKEN
from tracesvc.recorder.tree import task_id

LEAVES = st.one_of(
    st.tuples(st.just("sleep"), st.integers(1, 20)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("raise")),
)


def bodies(inner: Any) -> Any:
    body = st.lists(inner, max_size=4)
    timeouts = st.one_of(st.none(), st.integers(1, 30))
    return st.one_of(
        st.tuples(st.just("scope"), timeouts, st.booleans(), body),
        st.tuples(st.just("nursery"), st.lists(body, min_size=1, max_size=3), body),
    )


NESTS = st.lists(st.recursive(LEAVES, bodies, max_leaves=25), min_size=2, max_size=5)


class BoomError(Exception):
    pass


@dataclass
class Frame:
    """A scope that has been entered."""

    scope: trio.CancelScope
    owner: int
    nursery: trio.Nursery | None = None


@dataclass
class Knows:
    """The program plays a nest, and writes down what it does."""

    frames: list[Frame] = field(default_factory=list)
    asked: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """place of a frame -> (when, turn), owner, requester, source"""
    caught: dict[int, list[int]] = field(default_factory=dict)
    """task -> the scopes that its Cancelled came from"""
    turns: Any = field(default_factory=itertools.count)

    def key(self, frame: Frame) -> tuple[float, float]:
        """In which order scopes were cancelled; deadlines expire before anything runs."""
        asked = self.asked.get(self.frames.index(frame))
        return (frame.scope.deadline, -1) if asked is None else asked[0]

    def cancelled(self, stack: list[Frame]) -> list[Frame]:
        """The cancelled scopes that are seen from here."""
        found = []
        for frame in reversed(stack):
            if frame.scope._cancel_called:
                found.append(frame)
            if frame.scope.shield:
                break
        return found

    def ask(self, frame: Frame, source: CancelSource) -> None:
        if not frame.scope._cancel_called:
            entered = frame.scope._cancel_status is not None
            key = trio.current_time(), next(self.turns)
            me = task_id(trio.lowlevel.current_task())
            place = self.frames.index(frame)
            self.asked[place] = key, frame.owner if entered else 0, me, source

    async def play(self, body: list[Any], stack: list[Frame]) -> None:
        me = task_id(trio.lowlevel.current_task())
        for what, *rest in body:
            if what == "sleep":
                try:
                    await trio.sleep(rest[0] + next(self.turns) / 1024)
                except trio.Cancelled:
                    first = min(self.cancelled(stack), key=self.key)
                    self.caught.setdefault(me, []).append(number_of(first.scope))
                    raise
            elif what == "cancel":
                frame = self.frames[rest[0] % len(self.frames)]
                self.ask(frame, CancelSource.CALLED)
                frame.scope.cancel()
            elif what == "raise":
                at = max(i for i, frame in enumerate(stack) if frame.nursery is not None)
                if not self.cancelled(stack[: at + 1]):
                    self.ask(stack[at], CancelSource.ERROR)
                raise BoomError
            elif what == "scope":
                timeout, shield, inner = rest
                deadline = math.inf
                if timeout is not None:
                    deadline = trio.current_time() + timeout + next(self.turns) / 1024
                with trio.CancelScope(deadline=deadline, shield=shield) as scope:
                    frame = Frame(scope, me)
                    self.frames.append(frame)
                    await self.play(inner, [*stack, frame])
            else:
                await self.nest(*rest, stack)

    async def nest(self, children: list[Any], body: list[Any], stack: list[Frame]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                me = task_id(trio.lowlevel.current_task())
                frame = Frame(nursery.cancel_scope, me, nursery)
                self.frames.append(frame)
                for child in children:
                    nursery.start_soon(self.play, child, [*stack, frame])
                await self.play(body, [*stack, frame])
        except* BoomError:
            pass


@given(NESTS)
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_who_cancelled_whom(nest):
    knows = Knows()

    async def main() -> None:
        await knows.nest([nest[1:], nest[:1]], nest, [])

    recording = trace(main, run={"clock": MockClock(autojump_threshold=0)})
    assert not recording.statistics.missing
    said = {
        e.scope: (e.task, e.requester, e.source, e.nursery)
        for e in recording.of("cancel_request")
        if e.source != CancelSource.SHUTDOWN
    }
    expected = {}
    for place, frame in enumerate(knows.frames):
        asked = knows.asked.get(place)
        if asked is None and frame.scope._cancel_called and frame.scope.deadline < math.inf:
            asked = (0, 0), frame.owner, 0, CancelSource.DEADLINE
        if asked is not None:
            owner = asked[1]
            nursery = number_of(frame.nursery) if frame.nursery is not None and owner else 0
            expected[number_of(frame.scope)] = owner, *asked[2:], nursery
    assert said == expected
    reached: dict[int, list[int]] = {}
    for event in recording.of("task_cancelled"):
        if event.scope in expected:
            reached.setdefault(event.task, []).append(event.scope)
    assert reached == knows.caught


def test_a_sleep_is_no_cancellation_whatever_else_there_is_to_remember():
    """Native memory of why tasks wait has few places: what it forgot is asked for anew."""
    program = """
        import trio
        from trio.testing import MockClock
        from tests.recorder.recording import trace
        from tracesvc.recorder.native import native

        async def main():
            await trio.sleep(1)

        def run():
            recording = trace(main, run={"clock": MockClock(autojump_threshold=0)})
            assert len(recording.of("step_block")) > 0
            return [e for e in recording.of("cancel_request") if e.source == 2]

        assert run() == []
        codes = [compile(f"x{i} = {i}", "made", "exec") for i in range(5000)]
        if native is not None:
            for code in codes:
                native.learn(code, 0, 15, 0, 0)
        assert run() == []
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_must_not_leave_the_program_is_in_no_message_and_no_reason():
    async def fail() -> None:
        raise ValueError("user 4711 is unknown")

    async def main() -> None:
        with trio.CancelScope() as scope:
            reasons = ("user 4711 left",) if hasattr(trio.CancelScope, "_cancel") else ()
            scope.cancel(*reasons)
            await trio.lowlevel.checkpoint()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
        except* ValueError:
            pass

    redact = tracesvc.Redaction(patterns=[r"\d{4}"])
    recording = trace(main, redact=redact)
    (error,) = recording.of("task_error")
    assert error.message == "user [redacted] is unknown"
    assert not any("4711" in e.why for e in recording.of("cancel_request"))
    assert trace(main).of("task_error")[0].message == "user 4711 is unknown"


def functions() -> dict[str, object]:
    run = trio._core._run
    return {
        f"{cls.__name__}.{name}": value
        for cls in (run.CancelScope, run.Nursery, run.Deadlines)
        for name, value in vars(cls).items()
    }


def test_trios_functions_are_what_they_were():
    async def main() -> None:
        async with tracesvc.open_tracer(Memory(), groups=["+scopes"]) as tracer:
            during = functions()
            assert not tracer.statistics().missing
            assert {name for name in before if during[name] is not before[name]} == {
                taken.owner + "." + taken.name for group in TAKEN.values() for taken in group
            }

    before = functions()
    trio.run(main)
    assert all(functions()[name] is value for name, value in before.items())


def test_a_function_that_takes_other_arguments_leaves_its_group_out(monkeypatch):
    def _add_exc(self: object, exc: BaseException, reason: object, more: object = None) -> None:
        original(self, exc, reason)

    original = trio.Nursery._add_exc
    monkeypatch.setattr(trio.Nursery, "_add_exc", _add_exc)

    async def main() -> None:
        with trio.move_on_after(0):
            await trio.sleep_forever()

    recording = trace(main)
    assert [m for m in recording.statistics.missing if m.startswith("nurseries: Nursery._add_exc")]
    assert not recording.of("nursery_open")
    assert recording.of("cancel_request")
    assert {e.outcome for e in recording.of("task_exit")} == {Outcome.UNKNOWN}
