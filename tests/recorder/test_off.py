"""Off means off: whatever was recorded, and however, afterwards every object of trio's is the one that it was."""

import gc
import os
import signal
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory
from tracesvc.recorder.annotations import recording
from tracesvc.recorder.governor import LAST
from tracesvc.recorder.meter import Meter
from tracesvc.recorder.policy import Policy
from tracesvc.recorder.regulator import Regulator
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.tracer import current_tracer

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all stacks": {"stacks": "all", "stall_s": 0.001},
    "budget": {"budget": 0.01},
    "some": {"groups": ["scheduler", "logs"], "tasks": ["*.child"], "spans": ["a*"]},
    "redact": {"redact": tracesvc.Redaction(drop=["x"], patterns=["secret"])},
}


def everything_of_trio() -> dict[str, int]:
    """Path -> id of the object there: globals of trio's modules, and what its classes have."""
    found: dict[str, int] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "trio" or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            found[f"{name}.{key}"] = id(value)
            if isinstance(value, type) and value.__module__.partition(".")[0] == "trio":
                for attribute, held in list(vars(value).items()):
                    found[f"{name}.{key}.{attribute}"] = id(held)
    return found


def everything_else() -> tuple[Any, ...]:
    return (
        list(gc.callbacks),
        sys.gettrace(),
        sys.getprofile(),
        sys.unraisablehook,
        threading.excepthook,
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        {t.name for t in threading.enumerate() if t.name in (f"{OWN}pacer", f"{OWN}calibration")},
    )


def of_this_run() -> dict[str, int]:
    """What the runner has, but for what counts or changes by itself."""
    runner: Any = trio.lowlevel.current_task()._runner
    names = ("instruments", "clock", "io_manager", "entry_queue", "ki_manager", "asyncgens")
    return {name: id(getattr(runner, name)) for name in names} | {"class": id(type(runner))}


async def child() -> None:
    with tracesvc.span("a span", x="secret"), tracesvc.region("a region"):
        tracesvc.log("secret")
        await trio.sleep(0.002)


async def works() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(trio.to_thread.run_sync, child.__name__.upper)
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_trio_is_as_it_was(options):
    async def main() -> None:
        await works()  # what trio makes when it is first asked for
        before = of_this_run(), everything_of_trio(), everything_else()
        instruments = trio.lowlevel.current_task()._runner.instruments  # type: ignore[attr-defined]
        wanted = {hook: list(who) for hook, who in instruments.items()}
        async with tracesvc.open_tracer(Memory(), **options):
            await works()
            assert everything_of_trio() != before[1]
        assert (of_this_run(), everything_of_trio(), everything_else()) == before
        assert {hook: list(who) for hook, who in instruments.items() if who} == {
            hook: who for hook, who in wanted.items() if who
        }

    tracesvc.log("first")  # what is made at the first call
    trio.run(main)


def test_also_where_the_program_failed():
    before = everything_of_trio()

    async def main() -> None:
        async with tracesvc.open_tracer(Memory(), budget=0.01):
            raise ValueError("the program's")

    with pytest.raises(ValueError, match="the program's"):
        trio.run(main)
    assert everything_of_trio() == before


def test_also_where_it_is_stopped_in_the_dark(monkeypatch):
    monkeypatch.setattr(Regulator, "tick", lambda regulator: 0.25)

    async def main() -> None:
        before = of_this_run(), everything_of_trio()
        async with tracesvc.open_tracer(Memory(), budget=0.01) as tracer:
            darken(tracer, monkeypatch)
            await works()
        monkeypatch.undo()
        assert (of_this_run(), everything_of_trio()) == before

    trio.run(main)


def darken(tracer, monkeypatch) -> None:
    used = 0

    def total(meter, runs) -> int:
        nonlocal used
        used += 1_000_000_000
        return used

    monkeypatch.setattr(Meter, "total", total)
    time = 0
    while not all(run.dark for run in tracer._runs):
        time += 100_000_000
        tracer._regulator.look(tracer._regulator._told + time)
    assert tracer.statistics().overhead.level == LAST


def test_an_annotation_looks_once_whether_there_is_a_tracer(monkeypatch):
    """After the stop nothing of the session is reached any more: no policy, no proc, no clock."""

    async def main() -> None:
        async with tracesvc.open_tracer(Memory(), **OPTIONS["redact"]):
            tracesvc.log("on")

    trio.run(main)
    assert recording.session is None

    def no(*args: object, **kwargs: object) -> None:
        raise AssertionError("reached")

    for name in ("log", "work", "counter"):
        monkeypatch.setattr(Policy, name, no)
    monkeypatch.setattr("tracesvc.recorder.session.Session.proc_of_thread", no)
    with tracesvc.span("off", x="secret"), tracesvc.region("off"):
        tracesvc.log("off", x="secret")
        tracesvc.counter("off", 1)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_off(dark, monkeypatch):
    monkeypatch.setattr(Regulator, "tick", lambda regulator: 0.25)

    async def main() -> int:
        before = of_this_run(), everything_of_trio()
        async with tracesvc.open_tracer(
            Memory(), budget=0.01, redact=OPTIONS["redact"]["redact"]
        ) as t:
            await wait_all_tasks_blocked()
            if dark:
                darken(t, monkeypatch)
            child = os.fork()
            if not child:
                code = 1
                try:
                    assert current_tracer() is None
                    assert recording.session is None
                    after = of_this_run(), everything_of_trio()
                    monkeypatch.undo()
                    assert after[0] == before[0]
                    changed = {k for k, v in after[1].items() if before[1].get(k) != v}
                    assert not changed, changed
                    with tracesvc.span("child"):
                        tracesvc.log("child")
                    trio_is_fine = threading.Thread(target=trio.run, args=(works,))
                    trio_is_fine.start()
                    trio_is_fine.join(20)
                    code = 0
                finally:
                    os._exit(code)
            return ended(child)

    assert trio.run(main) == 0
