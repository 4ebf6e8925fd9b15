"""The direct way into trio: an object of ours in the place of a run's instrument table.

trio asks that table before every hook whether there is an instrument for it, and has it call them: both are Python, and
cost more than all of our recording.  Ours answers in C (or, as a `Table`, with a dict's own look-up), records, and
passes on to trio's table, which it keeps, what the instruments of others want; they are added, removed, called and,
where one raises, logged by trio's own code.

None of this is a promise of trio's.  So it is done only with versions that it was tried with, if what it touches looks
as it did then, and if a small run of its own, recorded both ways, comes out the same; `why_not` says what is in the
way.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from tracesvc.events import StepBlock, StepStart, TaskCreate, TaskExit, TaskRunnable
from tracesvc.recorder import own_run
from tracesvc.recorder.hooks import RunHooks
from tracesvc.recorder.native import native as module
from tracesvc.recorder.pacer import is_shutdown
from tracesvc.recorder.recording import HOOKS, Recording
from tracesvc.recorder.records import Records
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.session import Session

__all__ = ["DirectRunHooks", "why_not"]

OLDEST: Final = (0, 27)
NEWEST: Final = (0, 35)
"""minor versions of trio that this was tried with, first and last"""


_NONE: Final[Any] = object()


def _nothing(*_: object) -> None:
    """In the place of a hook that nobody has any more."""


class Table(dict[str, None]):
    """In the place of trio's table: the twin in Python of what ``csrc/hooks.c`` does natively.

    Its keys are the hooks that somebody wants; trio's ``in`` is a dict's.
    """

    __slots__ = ("_hooks", "call", "original", "recording")

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording: Final = recording
        self._hooks: Final = {name: getattr(recording, name) for name in HOOKS[:-1]}
        self.original: Any = None
        self.call: Callable[..., None] = _nothing
        """calls a hook, by its name, of every instrument"""

    def stand_in_for(self, original: Any) -> None:
        """Pass on what its instruments want from now on; None: no more."""
        self.original = original
        self.look_who_is_there()

    def look_who_is_there(self) -> None:
        """After every change of that: what there is to call."""
        original, calls = self.original, dict[str, Callable[..., None]]()
        if self.recording.recording:
            calls.update(self._hooks)  # without the last: see `PublicRunHooks`
        for name in () if original is None else original:
            calls[name] = self._both(name, calls.get(name, _nothing))
        self.clear()
        self.update(dict.fromkeys(calls))
        self.call = self._caller(calls) if calls else _nothing

    def _both(self, name: str, ours: Callable[..., None]) -> Callable[..., None]:
        """Our hook, then those of trio's table."""

        def both(*args: Any) -> None:
            try:
                ours(*args)
            finally:
                self.original.call(name, *args)
            self.look_who_is_there()  # one that raised has been removed

        return both

    def _caller(self, calls: dict[str, Callable[..., None]]) -> Callable[..., None]:
        """A closure with no more in it than must be: it is called with every hook."""

        def call(hookname: str, argument: Any = _NONE) -> None:
            if argument is _NONE:  # before and after the run
                calls[hookname]()
                return
            try:
                calls[hookname](argument)
            except MemoryError:  # raised into trio, it would end the run
                self.call = self._call_after_a_miss

        return trio.lowlevel.enable_ki_protection(call)

    @trio.lowlevel.enable_ki_protection
    def _call_after_a_miss(self, hookname: str, argument: Any = _NONE) -> None:
        """An event found no memory: it is counted, and what this run's tasks are at is read anew."""
        try:
            proc = self.recording.proc
            if isinstance(proc.records, Records):
                proc.records.missed += 1
            proc.seal()
            self.look_who_is_there()
        except MemoryError:
            return  # the next one tries
        self.call(hookname, argument)

    def add_instrument(self, instrument: trio.abc.Instrument) -> None:
        """See `trio.lowlevel.add_instrument`."""
        try:
            self.original.add_instrument(instrument)
        finally:
            self.look_who_is_there()

    def remove_instrument(self, instrument: trio.abc.Instrument) -> None:
        """See `trio.lowlevel.remove_instrument`."""
        try:
            self.original.remove_instrument(instrument)
        finally:
            self.look_who_is_there()


class DirectRunHooks(RunHooks):
    """By a table of ours; as an instrument it only hears when the run begins and ends."""

    _place: tuple[Any, Any, Any] | None = None
    """(runner, our table, trio's)"""

    def _open(self, recording: Any) -> None:
        """Put our table in the place of trio's."""
        runner: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        original = runner.instruments
        table = Table(recording) if isinstance(recording, Recording) else recording
        table.stand_in_for(original)
        if not isinstance(table, Table):
            table.runnable(runner.runq, trio._core._run.GLOBAL_RUN_CONTEXT.__dict__)
        self._place = runner, table, original
        runner.instruments = table

    def _close(self) -> None:
        super()._close()
        if self._place is None:
            return
        runner, table, original = self._place
        self._place = None
        if runner.instruments is table:
            runner.instruments = original
            table.stand_in_for(None)
        elif isinstance(
            table, Table
        ):  # somebody put theirs around ours, which passes on for as long as it is there
            table.look_who_is_there()


def why_not(native: bool) -> str:
    """What is in the way of it in this process, with native recording or without; "" if nothing is."""
    return _shape() or _self_test(native)


@functools.cache
def _shape() -> str:
    version = tuple(int(part) for part in trio.__version__.split(".")[:2] if part.isdigit())
    if not OLDEST <= version <= NEWEST:
        return f"trio {trio.__version__} is not one of the versions that it was tried with"
    try:
        table = trio._core._instrumentation.Instruments
        wanted = {
            "call": ["self", "hookname", "args"],
            "add_instrument": ["self", "instrument"],
            "remove_instrument": ["self", "instrument"],
        }
        for name, parameters in wanted.items():
            if list(inspect.signature(getattr(table, name)).parameters) != parameters:
                return f"trio's Instruments.{name} takes other arguments than it did"
        if "instruments" not in trio._core._run.Runner.__annotations__:
            return "trio's Runner has no instruments"
    except (AttributeError, ValueError) as exc:
        return f"trio has another shape than it had: {exc}"
    return ""


class _Judge(trio.abc.Instrument):
    """Sees the same run by trio's own way."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seen.append((StepStart.number, task._counter + 1))

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.seen.append((TaskCreate.number, task._counter + 1))

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.seen.append((TaskExit.number, task._counter + 1))


@functools.cache
def _self_test(native: bool) -> str:
    """Record a run of our own both ways, in a thread, for 1 ms or two; what differs."""
    failure: list[str] = []

    def test() -> None:
        try:
            failure.append(_try_out(native))
        except Exception as exc:
            failure.append(f"its self-test failed: {exc!r}")

    thread = threading.Thread(target=test, name=f"{OWN}self-test", daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        if not is_shutdown(exc):
            raise
        return f"its self-test needs a thread: {exc}"
    thread.join(10)
    return failure[0] if failure else "its self-test did not end"


def _try_out(native: bool) -> str:
    return _beside_an_instrument(native) or _by_itself(native)


def _recorded(
    native: bool, main: Callable[[Any], Awaitable[None]], *instruments: trio.abc.Instrument
) -> list[tuple[Any, ...]]:
    """The records of a run of ``main``, which is given what records it."""
    new_records: Any = module.Records if native and module is not None else Records
    session = Session(1 << 12, 2, new_records)
    hooks = DirectRunHooks(session, lambda run: None)
    own_run.run(functools.partial(main, hooks), instruments=(hooks, *instruments))
    return [b.records.record(i) for b in session._sealed for i in range(b.records.events)]


def _beside_an_instrument(native: bool) -> str:
    """Both see the same, and what we pass on arrives."""
    judge = _Judge()

    async def main(hooks: Any) -> None:
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            send, receive = trio.open_memory_channel[int](0)
            nursery.start_soon(send.send, 1)
            await receive.receive()
        if runner.instruments is hooks._place[2]:
            raise RuntimeError("the table is not in place")

    rows = _recorded(native, main, judge)
    if not rows:
        return "its self-test was not recorded"
    wanted = {StepStart.number, TaskCreate.number, TaskExit.number}
    seen = [(row[0], row[2]) for row in rows if row[0] in wanted]
    return "" if seen == judge.seen else "it sees another order of things than an instrument does"


def _by_itself(native: bool) -> str:
    """Without another instrument trio is asked less; tasks tell what they did, and it must be that."""
    steps: list[int] = []

    def step() -> None:
        steps.append(trio.lowlevel.current_task()._counter + 1)

    async def child(event: trio.Event) -> None:
        step()
        await trio.lowlevel.checkpoint()
        step()
        await event.wait()
        step()

    async def main(_: Any) -> None:
        step()
        event = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, event)
            nursery.start_soon(child, event)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                step()
            event.set()
        step()

    rows = [row for row in _recorded(native, main) if row[2] in steps]
    if [row[2] for row in rows if row[0] == StepStart.number] != steps:
        return "it sees other steps than the tasks took"
    blocked, woken = (
        sorted(row[2] for row in rows if row[0] == number)
        for number in (StepBlock.number, TaskRunnable.number)
    )
    return "" if blocked == woken and len(woken) == 3 else "it does not see who was woken"
