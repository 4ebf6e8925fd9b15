"""Members of one session, in one run or in many threads': who reads, who leaves first, who stands still."""

import gc
import random
import signal
import threading
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, close_ledger
from tracesvc import Sink, Tracer, TracerState, open_tracer
from tracesvc.events import LossCause
from tracesvc.recorder.tracer import current_tracer
from tracesvc.sinks.delivery import _Delivery, deliver


def in_threads(*mains) -> list[object]:
    """Run each in a thread of its own; their results, or the first exception."""
    results: list[object] = [None] * len(mains)
    failures = []

    def run(i: int, main) -> None:
        try:
            results[i] = trio.run(main)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=job) for job in enumerate(mains)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


class Member:
    """A run that opens a tracer, says something, and leaves."""

    def __init__(self, name: str, steps: int = 3, before: float = 0, within: float = 0) -> None:
        self.name, self.steps, self.before, self.within = name, steps, before, within
        self.sink = Memory(name)

    async def __call__(self) -> Tracer:
        await trio.sleep(self.before)
        async with open_tracer(self.sink, buffer_events=64) as tracer:
            for i in range(self.steps):
                tracesvc.log(f"{self.name} {i}")
                await trio.sleep(self.within)
        return tracer

    def check(self) -> Recording:
        recording = Recording(self.sink.data)
        own = [e.message for e in recording.of("log") if e.message.split()[0] == self.name]
        assert own == [f"{self.name} {i}" for i in range(self.steps)]
        return recording


# --- coming and going ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_members_come_and_go_in_8_threads_at_random(seed):
    """Each has all of its own, whoever reads, whoever is last; nothing of the tracer stays."""
    chance = random.Random(seed)
    members = [
        Member(f"m{i}", chance.randrange(20), chance.random() / 50, chance.random() / 500)
        for i in range(8)
    ]
    tracers = in_threads(*members)
    assert current_tracer() is None
    for member in members:
        member.check()
    for tracer in set(tracers):
        assert isinstance(tracer, Tracer)
        assert tracer.state is TracerState.OFF
        close_ledger(tracer.statistics())


@pytest.mark.parametrize("round_", range(10))
def test_two_that_leave_at_the_same_moment_leave_nothing_behind(round_):
    inside, leave = threading.Barrier(2), threading.Barrier(2)

    async def main(sink: Memory) -> Tracer:
        async with open_tracer(sink) as tracer:
            await trio.to_thread.run_sync(inside.wait)
            tracesvc.log(sink.name)
            await trio.to_thread.run_sync(leave.wait)
        return tracer

    sinks = Memory("a"), Memory("b")
    a, b = in_threads(lambda: main(sinks[0]), lambda: main(sinks[1]))
    assert a is b
    assert current_tracer() is None
    close_ledger(a.statistics())
    for sink in sinks:
        assert sink.name in [e.message for e in Recording(sink.data).of("log")]


def test_the_run_that_joins_is_recorded_from_then_on_with_all_its_tasks():
    """It began before it knew of the tracer, in another thread."""
    inside, done = threading.Event(), threading.Event()
    first, second = Memory("first"), Memory("second")

    async def owner() -> Tracer:
        async with open_tracer(first) as tracer:
            inside.set()
            await trio.to_thread.run_sync(done.wait)
        return tracer

    async def joins() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="was there before")
            await trio.to_thread.run_sync(inside.wait)
            async with open_tracer(second):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
        done.set()

    tracer, _ = in_threads(owner, joins)
    for recording in (
        Recording(first.data, statistics=tracer.statistics()),
        Recording(second.data),
    ):
        (create,) = (e for e in recording.of("task_create") if e.name == "was there before")
        steps = {e.type for e in recording.events if e.proc == create.proc}
        assert steps >= {"proc_start", "step_start", "step_block"}


async def test_the_last_words_of_the_sinks_are_kept():
    async with open_tracer(Memory("outer")) as tracer:
        async with open_tracer(Memory("inner")):
            assert {sink.name for sink in tracer.statistics().sinks} == {"outer", "inner"}
        assert {sink.name for sink in tracer.statistics().sinks} == {"outer", "inner"}
    told = {sink.name: sink for sink in tracer.statistics().sinks}
    assert 0 < told["inner"].events < told["outer"].events == tracer.statistics().stored
    assert told["inner"].lost == told["outer"].lost == {}


async def test_one_that_joins_when_nothing_follows_still_gets_a_whole_stream():
    async with open_tracer(Memory()):
        async with open_tracer(inner := Memory("inner")):
            pass
    assert Recording(inner.data).end is not None


async def test_who_is_given_a_tracer_that_is_off_is_told():
    with pytest.raises(tracesvc.TracerBusyError, match="OFF"):
        async with deliver(Tracer(), Memory()):
            pass


# --- standing still ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_member_whose_run_is_blocked_costs_bounded_memory_and_delays_nobody():
    """What is meant for it waits in its inbox; when that is full, it is dropped and accounted for."""
    first, joined, wake = threading.Event(), threading.Event(), threading.Event()
    blocked, working = Memory("blocked"), Memory("working")

    async def blocks() -> None:
        first.wait()  # who is first reads, and this run will not come to read
        async with open_tracer(blocked):
            joined.set()
            wake.wait()  # not a checkpoint: nothing in this run comes to run

    async def works() -> Tracer:
        async with open_tracer(working) as tracer:
            first.set()
            await trio.to_thread.run_sync(joined.wait)
            seen = 0
            for _ in range(40):
                for _ in range(32):
                    tracesvc.log("x" * 10_000)
                while tracer.statistics().stored <= seen:
                    await trio.lowlevel.checkpoint()
                seen = tracer.statistics().stored
            held = [member._inbox.queued_bytes for member in _Delivery.current.members]
            assert 4 << 20 < max(held) < 9 << 20
            wake.set()
        return tracer

    tracer, _ = in_threads(works, blocks)
    whole = Recording(working.data)
    assert len(whole.of("log")) == 40 * 32
    part = Recording(blocked.data)
    assert part.lost.keys() == {LossCause.SINK_FULL}
    assert 0 < len(part.of("log")) < 40 * 32
    told = {sink.name: sink for sink in tracer.statistics().sinks}
    assert told["blocked"].lost == {LossCause.SINK_FULL: part.lost.total()}
    assert told["blocked"].events == len(part.events)
    close_ledger(tracer.statistics())


class Stalls(Sink):
    """Takes nothing, for ever."""

    async def run(self, frames):
        self._begin(frames)
        await trio.sleep_forever()


class Stubborn(Sink):
    """Does not hear that it is cancelled for a while."""

    async def run(self, frames):
        self._begin(frames)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            self._end()


async def test_a_sink_that_does_not_end_in_time_is_waited_for_once_it_is_cancelled(caplog):
    started = time.monotonic()
    async with open_tracer(Stubborn("stubborn"), memory := Memory(), drain_timeout=0.1) as tracer:
        tracesvc.log("hello")
    assert 0.14 < time.monotonic() - started < 3
    assert "sink stubborn did not finish in time" in caplog.text
    recording = Recording(memory.data, statistics=tracer.statistics())
    told = {sink.name: sink for sink in tracer.statistics().sinks}
    assert told["stubborn"].lost == {LossCause.SINK_FULL: len(recording.events)}


async def test_where_no_thread_can_be_started_it_still_ends(monkeypatch, caplog):
    """As when the interpreter is about to end."""

    def refuse(thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with trio.fail_after(5):
        async with open_tracer(Stalls("stalls"), memory := Memory(), drain_timeout=0.1) as tracer:
            await wait_all_tasks_blocked()
            monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.undo()
    Recording(memory.data, statistics=tracer.statistics())


# --- Ctrl-C --------------------------------------------------------------------------------------


# an interrupt may come between the making of a coroutine and its being awaited; that is Python's, not ours
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_ctrl_c_anywhere_in_the_body_leaves_unchanged_with_a_whole_trace():
    """Whatever frame it interrupts, the tracer's tasks and hooks are not the ones it comes up in."""
    for delay in (0.001, 0.003, 0.01, 0.03):
        memory = Memory()

        async def main(memory: Memory = memory) -> None:
            async with open_tracer(memory, buffer_events=16):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(busy, nursery)

        async def busy(nursery: trio.Nursery, delay: float = delay) -> None:
            # Not before main waits for its tasks: an interrupt where a nursery opens may corrupt trio.
            signal.setitimer(signal.ITIMER_REAL, delay)
            late = time.monotonic() + 5
            while True:
                with tracesvc.span("busy"):
                    spawn(nursery)
                    await trio.lowlevel.checkpoint()
                # it came up in a finalizer, say, where Python only prints it
                if time.monotonic() > late:
                    signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            with pytest.raises(BaseException) as caught:  # noqa: PT011
                trio.run(main)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert leaves(caught.value) == {KeyboardInterrupt}
        assert current_tracer() is None
        Recording(memory.data)
        del caught
    gc.collect()  # what was never awaited is to be told here, and not of a test that follows


@trio.lowlevel.enable_ki_protection
def spawn(nursery) -> None:
    """An interrupt within trio's ``start_soon`` leaves a child that never runs and is waited for, traced or not."""
    nursery.start_soon(trio.lowlevel.checkpoint)


def leaves(exc: BaseException) -> set[type[BaseException]]:
    if isinstance(exc, BaseExceptionGroup):
        return {leaf for inner in exc.exceptions for leaf in leaves(inner)}
    return {type(exc)}


def test_ctrl_c_while_it_drains_gives_up_and_leaves_as_itself():
    """The second Ctrl-C of an impatient user; what the body had raised is its context."""
    failure, started = ValueError("the body's"), time.monotonic()

    async def main() -> None:
        async with open_tracer(Stalls("stalls"), drain_timeout=60):
            token = trio.lowlevel.current_trio_token()
            timer = threading.Timer(0.05, token.run_sync_soon, (signal.raise_signal, signal.SIGINT))
            timer.start()
            raise failure

    with pytest.raises(KeyboardInterrupt) as caught:
        trio.run(main)
    assert caught.value.__context__ is failure
    assert time.monotonic() - started < 10
    assert current_tracer() is None
