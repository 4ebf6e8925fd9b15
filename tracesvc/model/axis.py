"""One axis of time for many sessions: the clock of a service, with what is uncertain of it at every instant.

Clocks are the nodes of a graph, exchanges its edges (as in Perfetto's ClockTracker, but with bounds in the place of
offsets): a session comes to the axis by its own exchanges, by those of others on the same machine, or over a service
that both of them talked to.  Where no way leads, the machine's time of day is taken for what it is: an assumption.

A span that another session's span is the parent of began after that (Lamport's happened-before): such links narrow the
bounds from one side, and what contradicts them is told.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from tracesvc.format.clocks import RATE, Exchange
from tracesvc.model.clocks import UNKNOWN, Bounds, Cones, Relation
from tracesvc.model.links import Link
from tracesvc.model.timebase import Timebase

__all__ = ["Axis", "Contradiction", "Method", "Moment", "Placed"]

SAME_HOST: Final = 1_000_000_000
"""ns: clocks without a name that are apart by less are taken for one, if the host is the same"""
KNOT: Final = 1 << 23
"""ns between times that are placed exactly where many are to be placed; those in between lie on a line"""
MAX_KNOTS: Final = 1 << 16
ROUNDS: Final = 2
"""that links are gone through: what one narrows may narrow the next"""


class Method(StrEnum):
    """How a session came to the axis."""

    SAME_CLOCK = "same clock"
    EXCHANGES = "exchanges"
    SAME_HOST = "same host"
    TIME_OF_DAY = "time of day"


class Moment(NamedTuple):
    """An instant on the axis."""

    time: int
    """ns since the epoch, by the clock of the axis"""
    uncertainty: int | None
    """ns that the truth may be earlier or later; None: nothing bounds that"""


class Contradiction(NamedTuple):
    """A link whose child is on the axis before its parent by more than the uncertainty of both."""

    link: Link
    by: int
    """ns"""
    proven: bool
    """whether both are bounded; else it only shows that times of day are not to be trusted"""


class _Way:
    """From one clock to the next: along exchanges, or against them."""

    def __init__(self, relation: Relation, *, against: bool) -> None:
        self._relation, self._against = relation, against

    @property
    def steps(self) -> int:
        return len(self._relation.steps)

    def lead(self, bounds: Bounds) -> Bounds:
        """Bounds of a time by the one clock as bounds by the other."""
        low, high = bounds
        if low is None or high is None:
            return UNKNOWN
        if not self._against:
            least, most = self._relation.at(low).low, self._relation.at(high).high
            return UNKNOWN if least is None or most is None else Bounds(low + least, high + most)
        earliest = self._solve(low, lambda time: self._relation.at(time).high)
        latest = self._solve(high, lambda time: self._relation.at(time).low)
        return Bounds(earliest, latest) if earliest is not None and latest is not None else UNKNOWN

    def _solve(self, wanted: int, difference: Callable[[int], int | None]) -> int | None:
        """The time whose difference leads to ``wanted``: a fixed point, for differences change slowly."""
        time = self._relation.exchanges[0].sent
        for _ in range(40):
            by = difference(time)
            if by is None or time == wanted - by:
                break
            time = wanted - by
        return time


class Placed:
    """A session on the axis."""

    def __init__(self, base: Timebase, method: Method, ways: Sequence[_Way], anchor: int) -> None:
        self.base: Final = base
        self.method: Final = method
        self._ways, self._anchor = ways, anchor
        self._lows, self._highs, self._assumed = Cones(RATE), Cones(RATE), Cones(RATE)
        """what links say: of the axis minus the session's clock"""
        self._knots: dict[int, int] = {}

    @property
    def session(self) -> str:
        return self.base.session

    @property
    def steps(self) -> int:
        """How often exchanges show that a clock on the way to the axis was stepped (its machine slept, say)."""
        return sum(way.steps for way in self._ways)

    def bounds(self, time: int) -> Bounds:
        """What is proven of a time of the session: between which ns of the axis it lies."""
        found = UNKNOWN
        if self.method in (Method.SAME_CLOCK, Method.EXCHANGES):
            found = Bounds(time, time)
            for way in self._ways:
                found = way.lead(found)
            if found.low is not None and found.high is not None:
                found = Bounds(found.low + self._anchor, found.high + self._anchor)
        low, high = self._lows.at(time), self._highs.at(time)
        linked = Bounds(None if low is None else time + low, None if high is None else time - high)
        both = found & linked
        return found if both.contradict else both

    def at(self, time: int) -> Moment:
        """Where a time of the session is."""
        bounds = self.bounds(time)
        middle = bounds.middle
        if middle is not None:
            return Moment(middle, bounds.uncertainty)
        guess = time + (self._anchor if self.method is Method.SAME_HOST else self.base.wall)
        assumed = self._assumed.at(time)
        if assumed is not None:
            guess = max(guess, time + assumed)
        if bounds.low is not None:
            guess = max(guess, bounds.low)
        if bounds.high is not None:
            guess = min(guess, bounds.high)
        return Moment(guess, None)

    def time(self, time: int) -> int:
        """`at(time).time`, to within a few microseconds and quickly: never going back where the clocks do not."""
        i, part = divmod(time, KNOT)
        here = self._knot(i)
        return time + here + (self._knot(i + 1) - here) * part // KNOT

    def _knot(self, i: int) -> int:
        known = self._knots.get(i)
        if known is None:
            if len(self._knots) > MAX_KNOTS:
                self._knots.clear()
            known = self._knots[i] = self.at(i * KNOT).time - i * KNOT
        return known

    def offset(self, time: int) -> int:
        """ns by which the machine's time of day is behind the axis then."""
        return self.at(time).time - (time + self.base.wall)

    def not_before(self, time: int, axis: int, *, proven: bool) -> None:
        """A link says so."""
        (self._lows if proven else self._assumed).add(time, axis - time)
        self._knots.clear()

    def not_after(self, time: int, axis: int) -> None:
        """A link says so."""
        self._highs.add(time, time - axis)
        self._knots.clear()


@dataclass(slots=True)
class Axis:
    """See `Axis.of`."""

    clock: str
    """name of the clock that it is"""
    placed: list[Placed] = field(default_factory=list)
    """in the order of the sessions given"""
    contradictions: list[Contradiction] = field(default_factory=list)

    @classmethod
    def of(cls, bases: Sequence[Timebase], links: Iterable[Link] = ()) -> Axis:
        """Put sessions on one axis: the clock of the service that most of them lead to, else the one most have."""
        graph = _Graph(bases)
        axis = cls(graph.reference)
        anchor = graph.anchor()
        for base, clock in zip(bases, graph.clocks, strict=True):
            ways = graph.ways.get(clock)
            if ways is None:
                method, to_add = Method.TIME_OF_DAY, 0
                if graph.seems_kin(base):
                    method, to_add = Method.SAME_HOST, anchor
                axis.placed.append(Placed(base, method, (), to_add))
            else:
                method = Method.EXCHANGES if ways else Method.SAME_CLOCK
                axis.placed.append(Placed(base, method, ways, anchor))
        axis._follow(list(links))
        return axis

    def of_session(self, session: str) -> Placed:
        """Where a session is.

        Raises:
          KeyError: it is not on this axis.
        """
        for placed in self.placed:
            if placed.session == session:
                return placed
        raise KeyError(session)

    def _follow(self, links: list[Link]) -> None:
        """Narrow bounds by links, and note those that contradict them."""
        known = {placed.session: placed for placed in self.placed}
        for _ in range(ROUNDS):
            self.contradictions.clear()
            for link in links:
                parent, child = known.get(link.parent.session), known.get(link.child.session)
                if parent is None or child is None or parent is child:
                    continue
                began = parent.bounds(link.parent.begin)
                follows = child.bounds(link.child.begin)
                if began.low is not None and follows.high is not None and began.low > follows.high:
                    by = began.low - follows.high
                    self.contradictions.append(Contradiction(link, by, proven=True))
                    continue
                if began.low is not None:
                    child.not_before(link.child.begin, began.low, proven=True)
                if follows.high is not None:
                    parent.not_after(link.parent.begin, follows.high)
                late = parent.at(link.parent.begin).time - child.at(link.child.begin).time
                if began.middle is None and follows.middle is None and late > 0:
                    self.contradictions.append(Contradiction(link, late, proven=False))
                    at = parent.at(link.parent.begin).time
                    child.not_before(link.child.begin, at, proven=False)


class _Graph:
    """Clocks, and the ways between them."""

    def __init__(self, bases: Sequence[Timebase]) -> None:
        self.clocks: Final = [_own_clock(base) for base in bases]
        self._bases = bases
        pooled: dict[tuple[str, str], list[Exchange]] = {}
        for base, clock in zip(bases, self.clocks, strict=True):
            for one in base.exchanges:
                if one.clock != clock:
                    pooled.setdefault((clock, one.clock), []).append(one)
        self._relations = {pair: Relation(rows) for pair, rows in pooled.items()}
        self._next: dict[str, list[tuple[str, _Way]]] = {}
        """clock -> (clock that a way comes from, the way)"""
        for (a, b), relation in self._relations.items():
            if relation.exchanges:
                self._next.setdefault(b, []).append((a, _Way(relation, against=False)))
                self._next.setdefault(a, []).append((b, _Way(relation, against=True)))
        self.reference: Final = self._choose()
        self.ways: Final = self._ways_to(self.reference)
        """clock -> ways to the reference, as many as it takes"""

    def _choose(self) -> str:
        """The service that most sessions lead to, then the one with the most exchanges; else the commonest clock."""
        services = Counter(one.clock for base in self._bases for one in base.exchanges)
        if services:
            reach = {name: len(set(self._ways_to(name)) & set(self.clocks)) for name in services}
            return max(services, key=lambda name: (reach[name], services[name], name))
        return Counter(self.clocks).most_common(1)[0][0] if self.clocks else ""

    def _ways_to(self, reference: str) -> dict[str, list[_Way]]:
        ways: dict[str, list[_Way]] = {reference: []}
        reached = deque([reference])
        while reached:
            clock = reached.popleft()
            for before, way in self._next.get(clock, ()):
                if before not in ways:
                    ways[before] = [way, *ways[clock]]
                    reached.append(before)
        return ways

    def anchor(self) -> int:
        """ns to add to the reference, to come to ns since the epoch: what it said itself, last."""
        said = [
            one for base in self._bases for one in base.exchanges if one.clock == self.reference
        ]
        if said:
            last = max(said, key=lambda one: one.answered)
            return last.wall - last.answered
        return next((base.wall for base in self._of_reference()), 0)

    def _of_reference(self) -> list[Timebase]:
        pairs = zip(self._bases, self.clocks, strict=True)
        return [base for base, clock in pairs if clock == self.reference]

    def seems_kin(self, base: Timebase) -> bool:
        """Whether its clock, or that of the axis, has no name, and they seem to be the same."""
        host = base.source.get("host")
        return host is not None and any(
            other.source.get("host") == host
            and abs(other.wall - base.wall) < SAME_HOST
            and not (other.source.get("clock") and base.source.get("clock"))
            for other in self._of_reference()
        )


def _own_clock(base: Timebase) -> str:
    """Its name; another one, where exchanges show that it is not the clock of that name (a cloned machine's)."""
    own = Relation(one for one in base.exchanges if one.clock == base.clock)
    if any(one.low > 0 or one.high < 0 for one in own.exchanges):
        return f"session {base.session}"
    return base.clock
