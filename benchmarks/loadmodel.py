"""The load model: what a thousand programs do in a day, from a seed. Nothing here talks to anybody.

Every number below is a choice, made once, so that two days are comparable; docs/capacity.md says what follows from it.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Life", "Load", "Plan", "Totals", "plans", "totals"]

DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Load:
    """Its parameters; times in seconds unless they say otherwise."""

    seed: int = 1
    programs: int = 1000
    mean_rate: float = 18.0
    """events a second of a program in its busiest hour, the mean of all"""
    spread: float = 1.2
    """sigma of the logarithm of that: a few programs are busy, most are not"""
    night: float = 0.25
    """of the busiest hour's load is left twelve hours later; a cosine between"""
    busiest: float = 15.0
    """o'clock"""
    uptime: float = 10 * 3600.0
    """until a program is restarted, exponentially distributed; each start is a session"""
    crash: float = 0.2
    """of the sessions have no end mark"""
    down: float = 20.0
    """between a session and the next"""
    bursts: int = 4
    """incidents a day: a tenth of the programs do five times as much for a quarter of an hour"""
    burst_share: float = 0.1
    burst_factor: float = 5.0
    burst_length: float = 900.0
    post_every: float = 1.0
    """as `tracesvc.PushSink` does"""
    broken: float = 1 / 400
    """of the posts are broken off halfway, and sent again over a new connection"""
    followers: int = 600
    """streams a day that follow a live session, for `follow` on the mean"""
    follow: float = 1200.0
    questions: int = 3000
    """a day: lists, sessions, summaries, latencies, the page"""
    scrape: float = 60.0
    """between two looks at /metrics"""

    def curve(self, second: float) -> float:
        """The load at this time of the day, in the busiest hour's."""
        hour = second / 3600 - self.busiest
        return self.night + (1 - self.night) * (1 + math.cos(hour * math.pi / 12)) / 2


@dataclass(frozen=True, slots=True)
class Life:
    """One session of a program."""

    begin: float
    end: float
    crashed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """One program's day."""

    name: str
    rate: float
    """events a second in the busiest hour"""
    lives: tuple[Life, ...]
    bursts: tuple[tuple[float, float], ...]
    """when it has how much more to do: those incidents that it is part of"""
    load: Load

    def events(self, begin: float, end: float) -> float:
        """Between two times of the day."""
        steps = max(1, int((end - begin) / 300))
        width = (end - begin) / steps
        return sum(
            self.rate
            * self.load.curve(begin + (i + 0.5) * width)
            * self._factor(begin + (i + 0.5) * width)
            * width
            for i in range(steps)
        )

    def _factor(self, second: float) -> float:
        hit = any(begin <= second < end for begin, end in self.bursts)
        return self.load.burst_factor if hit else 1.0


def plans(load: Load) -> Iterator[Plan]:
    """Every program's day."""
    chance = random.Random(load.seed)
    incidents = sorted(chance.uniform(0, DAY - load.burst_length) for _ in range(load.bursts))
    middle = math.log(load.mean_rate) - load.spread**2 / 2
    for i in range(load.programs):
        rate = math.exp(chance.gauss(middle, load.spread))
        lives, at = [], 0.0
        while at < DAY:
            end = at + max(60.0, chance.expovariate(1 / load.uptime))
            lives.append(Life(at, min(end, DAY), end >= DAY or chance.random() < load.crash))
            at = end + load.down
        bursts = tuple(
            (begin, begin + load.burst_length)
            for begin in incidents
            if chance.random() < load.burst_share
        )
        yield Plan(f"service-{i % 97:02}-{i:04}", rate, tuple(lives), bursts, load)


@dataclass(frozen=True, slots=True)
class Totals:
    """The day as numbers: what docs/capacity.md multiplies with what each costs."""

    sessions: int
    events: int
    posts: int
    busiest_posts: float
    """a second, in the busiest hour"""
    busiest_events: float
    """a second, in the busiest hour, without incidents"""
    follower_seconds: float
    questions: int
    check: int
    """of all plans: the same seed gives the same day"""


def totals(load: Load) -> Totals:
    """Of all programs."""
    sessions, events, posts, rate, check = 0, 0.0, 0.0, 0.0, 0
    for plan in plans(load):
        sessions += len(plan.lives)
        rate += plan.rate
        for life in plan.lives:
            events += plan.events(life.begin, life.end)
            posts += (life.end - life.begin) / load.post_every
        check = zlib.crc32(repr((plan.name, round(plan.rate, 6), plan.lives)).encode(), check)
    return Totals(
        sessions,
        round(events),
        round(posts),
        load.programs / load.post_every,
        rate,
        load.followers * load.follow,
        load.questions,
        check,
    )
