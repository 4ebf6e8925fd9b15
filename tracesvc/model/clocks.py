"""How two clocks relate: what exchanges between them prove of their difference, at every instant.

An exchange bounds the difference from both sides (Cristian's method, and NTP's): what was sent before it arrived gives
the upper bound, what was answered before that was received the lower one, and no assumption is made about how the time
was divided between the two ways.  Between and beyond exchanges the bounds widen by what the clocks may have come apart,
`tracesvc.format.clocks.RATE` parts per million.  The tightest that follows from all exchanges together is the envelope
of these cones (McShane's and Whitney's extension of a Lipschitz function), and that is what is given here.

Where exchanges contradict each other, a clock was stepped in between (a virtual machine was suspended, say): what holds
on the two sides is kept apart, and in between both is possible.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from tracesvc.format.clocks import RATE, Exchange, drift

__all__ = ["Bounds", "Cones", "Relation"]


class Bounds(NamedTuple):
    """Of a number of ns; None: there is none on that side."""

    low: int | None
    high: int | None

    def __and__(self, other: Bounds) -> Bounds:
        """What both of them say."""
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Bounds(max(lows, default=None), min(highs, default=None))

    def __or__(self, other: Bounds) -> Bounds:
        """What one of them says."""
        lows = None if self.low is None or other.low is None else min(self.low, other.low)
        highs = None if self.high is None or other.high is None else max(self.high, other.high)
        return Bounds(lows, highs)

    @property
    def contradict(self) -> bool:
        """Whether nothing lies within."""
        return self.low is not None and self.high is not None and self.low > self.high

    @property
    def middle(self) -> int | None:
        """None where one side is open."""
        return None if self.low is None or self.high is None else (self.low + self.high) // 2

    @property
    def uncertainty(self) -> int | None:
        """How far the truth may lie from the middle, either way."""
        return None if self.low is None or self.high is None else (self.high - self.low + 1) // 2


UNKNOWN: Final = Bounds(None, None)


class Cones:
    """The greatest of lower bounds that each hold at one instant, and less and less around it."""

    def __init__(self, rate: int = RATE) -> None:
        self._rate = rate
        self._values: list[int] = []
        self.times: list[int] = []
        """where the bound is greater than just before and just after, ascending"""

    def add(self, time: int, value: int) -> None:
        """One more bound; quick where it is the last."""
        at = self.at(time)
        if at is not None and at >= value:
            return
        first = last = bisect_left(self.times, time)
        while (
            first
            and value - drift(time - self.times[first - 1], self._rate) >= (self._values[first - 1])
        ):
            first -= 1
        while last < len(self.times) and (
            value - drift(time - self.times[last], self._rate) >= self._values[last]
        ):
            last += 1
        self.times[first:last] = [time]
        self._values[first:last] = [value]

    def at(self, time: int) -> int | None:
        """None: there is no bound at all."""
        i = bisect_right(self.times, time)
        # Of those that no other covers, the nearest on either side is the greatest.
        near = range(max(0, i - 1), min(i + 1, len(self.times)))
        seen = (self._values[j] - drift(time - self.times[j], self._rate) for j in near)
        return max(seen, default=None)


class _Stretch:
    """Exchanges that go together: no clock was stepped."""

    def __init__(self, first: Exchange, rate: int) -> None:
        self._lows, self._highs = Cones(rate), Cones(rate)
        self.first, self.last = first.sent, first.received
        self.add(first)

    def takes(self, one: Exchange) -> bool:
        """Whether there is a course of the clocks that satisfies all, this one too."""
        low, high = self.at(one.sent).low, self.at(one.received).high
        return (low is None or low <= one.high) and (high is None or one.low <= high)

    def add(self, one: Exchange) -> None:
        self._lows.add(one.received, one.low)
        self._highs.add(one.sent, -one.high)
        self.first, self.last = min(self.first, one.sent), max(self.last, one.received)

    def at(self, time: int) -> Bounds:
        high = self._highs.at(time)
        return Bounds(self._lows.at(time), None if high is None else -high)


class Relation:
    """One clock minus another, in ns, at any instant of the other.

    Args:
      exchanges: In any order; one that proves nothing, because its own times contradict each other, is left out.
      rate: Parts per million by which the clocks may differ in speed.
    """

    def __init__(self, exchanges: Iterable[Exchange], rate: int = RATE) -> None:
        self.rate: Final = rate
        self.exchanges: Final = sorted({one for one in exchanges if one.possible(rate)})
        self._stretches: list[_Stretch] = []
        for one in self.exchanges:
            if self._stretches and self._stretches[-1].takes(one):
                self._stretches[-1].add(one)
            else:
                self._stretches.append(_Stretch(one, rate))
        self._lasts = [stretch.last for stretch in self._stretches]

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Within what times a clock was stepped."""
        pairs = zip(self._stretches, self._stretches[1:], strict=False)
        return [(before.last, after.first) for before, after in pairs]

    def at(self, time: int) -> Bounds:
        """The bounds at an instant of the other clock."""
        if not self._stretches:
            return UNKNOWN
        i = bisect_left(self._lasts, time)
        if i == len(self._stretches):
            return self._stretches[-1].at(time)
        after = self._stretches[i]
        if i == 0 or time >= after.first:
            return after.at(time)
        return self._stretches[i - 1].at(time) | after.at(time)
