"""The tracer's own runs leave the program's trio alone."""

import trio

from tests.recorder.recording import Memory
from tracesvc.recorder import direct, own_run
from tracesvc.sinks.outside import OutsideTracer


async def passes(n: int = 20) -> int:
    for _ in range(n):
        await trio.lowlevel.checkpoint()
    return n


def test_they_draw_none_of_trios_random_numbers():
    """A test that seeds them, with pytest-trio and hypothesis for one, gets the order of tasks that it got before."""
    before = trio._core._run._r.getstate()
    assert own_run.run(passes) == 20
    direct._self_test.cache_clear()
    assert direct.why_not(native=False) == ""
    tracer = OutsideTracer(Memory())
    tracer.start()
    tracer.stop()
    assert trio._core._run._r.getstate() == before
    trio.run(passes)
    assert trio._core._run._r.getstate() != before, "else this would prove nothing"


def test_a_trio_of_another_shape_runs_them_all_the_same(monkeypatch):
    monkeypatch.delattr(trio._core._run, "unrolled_run")
    real = trio.run
    monkeypatch.setattr(trio, "run", lambda main, **_: real_result(main))

    def real_result(main):
        monkeypatch.undo()
        return real(main)

    assert own_run.run(passes) == 20
