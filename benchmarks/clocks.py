"""How certain the common axis is: six hours of pushes over networks of several kinds, with clocks whose truth is known.

The clocks gain and lose up to 60 ppm in turns, the ways there and back differ, and a few messages take very long.  The
bar: the truth is never outside of what is stated.
"""

from __future__ import annotations

import json as json_module
import random
from typing import Any, Final

from tests.model.clockwork import SimulatedClock, exchange
from tracesvc.format import Clocks, Exchange
from tracesvc.format.frames import encode_frame
from tracesvc.model.clocks import Relation
from tracesvc.recorder.exchanges import AGAIN
from tracesvc.sinks.timekeeper import Timekeeper

__all__ = ["main"]

US: Final = 1_000
S: Final = 1_000_000_000
HOURS: Final = 6
END: Final = HOURS * 3600 * S
NETWORKS: Final = {
    "same host": (60 * US, 60 * US),
    "data centre": (200 * US, 300 * US),
    "between regions": (35_000 * US, 45_000 * US),
    "mobile": (40_000 * US, 90_000 * US),
}
"""ns that a message takes there and back, at least"""
SEED: Final = 7


def _clock(name: str, offset: int, chance: random.Random) -> SimulatedClock:
    changes = sorted(chance.sample(range(1, END), 30))
    rates = [(0, chance.randint(-60, 60)), *((at, chance.randint(-60, 60)) for at in changes)]
    return SimulatedClock(name, offset, rates)


def measure(network: str) -> dict[str, Any]:
    """Figures of one network."""
    chance = random.Random(f"{SEED} {network}")
    ours, theirs = _clock("ours", 5 * S, chance), _clock("theirs", 10**15, chance)
    forth, back = NETWORKS[network]
    learned: list[Exchange] = []
    keeper = Timekeeper(learned.append)
    for second in range(HOURS * 3600):
        # exponential queues; one message in a hundred is stuck for a while
        stuck = chance.random() < 0.01
        late = [
            int(chance.expovariate(1 / (way * (50 if stuck else 0.4)))) for way in (forth, back)
        ]
        busy = chance.randint(1_000 * US, 30_000 * US)
        sent = second * S + chance.randint(0, S // 2)
        keeper.note(exchange(ours, theirs, sent, forth + late[0], busy, back + late[1]))
    relation = Relation(learned)
    uncertain, errors, outside = [], [], 0
    for true in range(60 * S, END, 977_000_000):
        low, high = relation.at(ours.at(true))
        assert low is not None
        assert high is not None
        truth = theirs.at(true) - ours.at(true)
        outside += not low - 2 <= truth <= high + 2
        uncertain.append((high - low + 1) // 2)
        errors.append(abs(truth - (low + high) // 2))
    # A generation a second, which tells the last ones again.
    new = [sum(1 for one in learned if s * S <= one.sent - 5 * S < s * S + S) for s in range(600)]
    told = [Clocks(learned[: AGAIN + n]).pack() for n in new]
    size = sum(len(encode_frame(Clocks.kind, 0, rows)) for rows in told)
    return {
        "round_trip_us": (forth + back) / 1000,
        "uncertainty_us": sorted(uncertain)[len(uncertain) // 2] / 1000,
        "uncertainty_max_us": max(uncertain) / 1000,
        "error_us": sorted(errors)[len(errors) // 2] / 1000,
        "error_max_us": max(errors) / 1000,
        "outside": outside,
        "looked_at": len(uncertain),
        "exchanges_an_hour": len(learned) / HOURS,
        "bytes_an_hour": size * 6,
        "steps": len(relation.steps),
    }


def main(json: bool = False) -> int:
    """Print the figures; returns 1 if a bar is missed, else 0."""
    figures = {network: measure(network) for network in NETWORKS}
    if json:
        print(json_module.dumps(figures, indent=2))
    else:
        print(
            "| network | round trip µs | stated ± µs | at most | error µs | at most | outside | exchanges/h | bytes/h |"
        )
        print("|---|" + "---:|" * 8)
        for network, f in figures.items():
            print(
                f"| {network} | {f['round_trip_us']:,.0f} | {f['uncertainty_us']:,.0f} | "
                f"{f['uncertainty_max_us']:,.0f} | {f['error_us']:,.1f} | {f['error_max_us']:,.1f} | "
                f"{f['outside']:,} of {f['looked_at']:,} | {f['exchanges_an_hour']:,.0f} | {f['bytes_an_hour']:,.0f} |"
            )
    return int(any(f["outside"] or f["steps"] for f in figures.values()))
