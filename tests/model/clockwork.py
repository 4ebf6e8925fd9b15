"""Clocks whose truth is known: rates that change, NTP that steps the time of day, networks that delay one way."""

from bisect import bisect_right
from dataclasses import dataclass, field

from tracesvc.format.clocks import Exchange

MILLION = 1_000_000


@dataclass
class SimulatedClock:
    """``CLOCK_MONOTONIC`` of a machine, as a function of the true time (ns).

    ``rates``: (true time from which it holds, parts per million too fast), ascending, the first one at 0.
    """

    name: str
    offset: int
    rates: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    steps: list[tuple[int, int]] = field(default_factory=list)
    """(true time, ns by which it is stepped then)"""

    def __post_init__(self) -> None:
        self._reads = [self.offset * MILLION]
        for (a, rate), (b, _) in zip(self.rates, self.rates[1:], strict=False):
            self._reads.append(self._reads[-1] + (b - a) * (MILLION + rate))

    def at(self, true: int) -> int:
        i = bisect_right([time for time, _ in self.rates], true) - 1
        since, rate = self.rates[i]
        ran = (self._reads[i] + (true - since) * (MILLION + rate)) // MILLION
        return ran + sum(by for time, by in self.steps if time <= true)


def exchange(
    ours: SimulatedClock,
    theirs: SimulatedClock,
    sent: int,
    forth: int,
    busy: int,
    back: int,
    wall: int = 0,
) -> Exchange:
    """What both ends see of a request that leaves at the true time ``sent``."""
    arrived = sent + forth
    answered = arrived + busy
    return Exchange(
        ours.at(sent),
        theirs.at(arrived),
        theirs.at(answered),
        ours.at(answered + back),
        wall or theirs.at(answered),
        theirs.name,
    )
