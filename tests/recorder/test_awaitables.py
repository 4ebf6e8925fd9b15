"""Await stacks of whatever can be awaited: none of it raises, hangs or crashes, and what can be seen is true."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.compiled import compiled
from tests.recorder.recording import trace
from tracesvc.recorder import stacks
from tracesvc.recorder.native import native

MAX = stacks.MAX_FRAMES


@pytest.fixture
def stack_of(way):
    """Of the native part or of the twin."""
    return native.stack_of if way[1] == "1" else stacks.stack_of


def names(stack) -> list[str]:
    return [function.rsplit(".", 1)[-1] for function, _, _ in stack.frames]


@types.coroutine
def pause():
    yield


def suspended(coroutine):
    coroutine.send(None)
    return coroutine


# --- made by Cython ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cython(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cython")
    source = Path(__file__).with_name("awaits.pyx")
    command = [sys.executable, "-m", "cython", "-3", str(source), "-o", str(directory / "awaits.c")]
    subprocess.run(command, check=True, capture_output=True)
    return compiled(directory / "awaits.c", directory)


def test_coroutines_of_cythons_are_seen_through(cython):
    async def main() -> None:
        await cython.waits(sleeps)
        await cython.deep(sleeps, 100)
        async for _ in cython.numbers(sleeps):
            pass
        await cython.Awaitable(sleeps)

    async def sleeps() -> None:
        await trio.sleep(1)

    clock = MockClock(autojump_threshold=0)
    found = [
        [function.rsplit(".", 1)[-1] for function, _, _ in event.stack]
        for event in trace(main, run={"clock": clock}, stacks="all").of("task_stack", task="main")
    ]
    assert len(found) == 4
    for frames in found:
        assert 1 <= len(frames) <= MAX
        assert frames[-1] == "main" or len(frames) == MAX
    assert "sleeps" in found[0]
    assert "sleeps" in found[3]


def test_a_task_whose_function_is_cythons(cython):
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cython.waits, trio.lowlevel.checkpoint, name="of cython")

    assert trace(main, stacks="all").of("task_exit", task="of cython")


# --- chains that are no chains ---------------------------------------------------------------------


def test_a_ring_ends(stack_of):
    class Ring:
        """Says that it awaits itself."""

        cr_code = gi_code = (lambda: None).__code__
        cr_frame = None

        @property
        def cr_await(self):
            return self

    async def awaits(awaitable) -> None:
        await awaitable

    class Awaits:
        def __await__(self):
            return self

        def __iter__(self):
            return self

        def __next__(self):
            return None

        cr_code = (lambda: None).__code__
        cr_frame = None

        @property
        def cr_await(self):
            return Ring()

    coroutine = suspended(awaits(Awaits()))
    assert names(stack_of(coroutine)) == ["awaits"]
    coroutine.close()


def test_a_chain_that_changes_while_it_is_read(stack_of):
    """What is looked at ends what it lies in, and lets its code go."""

    class Ends:
        coroutine = None

        def __await__(self):
            return self

        def __iter__(self):
            return self

        def __next__(self):
            return None

        cr_frame = None

        @property
        def cr_code(self):
            if self.coroutine is not None:
                coroutine, self.coroutine = self.coroutine, None
                coroutine.close()
                coroutine = None
                scope.clear()
            return (lambda: None).__code__

        cr_await = None

    for _ in range(100):
        scope: dict = {}
        exec("async def outer(inner):\n    await inner\n", scope)
        ends = Ends()
        ends.coroutine = suspended(scope["outer"](ends))
        found = stack_of(ends.coroutine)
        assert found is None or set(names(found)) <= {"outer"}
        if ends.coroutine is not None:
            ends.coroutine.close()


def test_an_awaitable_that_does_not_like_to_be_looked_at(stack_of):
    class Refuses:
        def __await__(self):
            return self

        def __iter__(self):
            return self

        def __next__(self):
            return None

        def close(self):
            pass

        def __getattr__(self, name):
            raise ZeroDivisionError(name)

    async def outer() -> None:
        await Refuses()

    coroutine = suspended(outer())
    found = stack_of(coroutine)
    assert found is None or names(found) == ["outer"]
    coroutine.close()


def test_a_recursion_deeper_than_is_looked_at(stack_of):
    async def down(n: int) -> None:
        await (down(n - 1) if n else pause())

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        coroutine = suspended(down(5000))
    finally:
        sys.setrecursionlimit(before)
    found = stack_of(coroutine)
    assert len(found.frames) == MAX
    assert set(names(found)) <= {"down", "pause"}
    sys.setrecursionlimit(20_000)
    try:
        coroutine.close()
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("what", [None, 1, "text", object(), iter([]), (i for i in ()), type])
def test_what_is_no_coroutine_at_all(stack_of, what):
    found = stack_of(what)
    assert found is None or len(found.frames) <= 1


def test_coroutines_that_have_not_begun_or_are_over(stack_of):
    async def short() -> None:
        pass

    coroutine = short()
    found = stack_of(coroutine)
    assert found is None or names(found) == ["short"]
    coroutine.close()
    assert stack_of(coroutine) is None
