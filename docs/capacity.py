"""Makes ``capacity.md`` of the measured figures in ``capacity.json``: ``python -m docs.capacity``.

``make campaign-capacity`` measures them anew.  A test compares the committed page with what this makes, so that no
number on it can be anything but measured, or calculated from what was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

__all__ = ["FIGURES", "PAGE", "page"]

FIGURES: Final = Path(__file__).with_name("capacity.json")
PAGE: Final = Path(__file__).with_name("capacity.md")
BILLION: Final = 10**9
DAY: Final = 86_400
FILES: Final = 65_536
"""file descriptors that an operator is to allow"""

HEAD: Final = """\
<!-- made by docs/capacity.py from docs/capacity.json -->
# Capacity

What one service carries, where it breaks first, and what a billion events cost. Every number is measured or calculated
from measured ones: `make campaign-capacity` measures, `python -m docs.capacity` calculates. Measured on {date} on a
virtual machine with {cores} cores, CPython {python}, while others wanted its processor and its disk too: processor time
and ratios hold, times by the clock are worse than they need be.
"""
MODEL: Final = """\
`benchmarks/loadmodel.py`, from a seed: {programs:,} programs whose rates differ as programs' rates do (lognormal, sigma
1.2), a day that is four times as busy at three in the afternoon as at three in the night, four incidents in which a
tenth of them do five times as much, restarts every ten hours, a fifth of them crashes, one post in 400 broken off,
followers, questions, a look at `/metrics` each minute. `make campaign-day` has all of it happen in minutes, the posts
of ten minutes joined into one, and then looks for every acknowledged byte. (The model has a thousand programs; where
they are fewer here, so are followers, questions and looks.)
"""
WAYS: Final = """\
The same posts of 256 KiB, MB/s by the clock, medians of rounds in turn (`python -m benchmarks service`). JetStream has
one server, one replica, and syncs when it likes. A cluster of three with three replicas is in the
[evidence](evidence.md#what-it-costs).
"""
COLUMNS: Final = (
    *("clients", "the service", "a handler that keeps nothing", "files, each synced", "JetStream"),
    "service to handler",
)


def page(figures: dict[str, Any]) -> str:
    """The whole page."""
    return "\n".join(
        [
            HEAD.format(**figures["machine"]),
            "## What things cost\n",
            _table(("", "measured"), _costs(figures)),
            "## What one core carries\n",
            _table(("", "calculated"), _core(figures)),
            "## What one disk and one NATS server carry\n",
            WAYS,
            _table(COLUMNS, _ways(figures)),
            "## A billion events\n",
            _table(("", "calculated"), _billion(figures)),
            f"## A day of {figures['day']['programs']} programs\n",
            MODEL.format(**figures["day"]),
            _table(("", "the day", "as it was measured"), _day(figures)),
            "## Where it breaks first\n",
            _table(("what", "at", "what it looks like", "what to do"), _breaks(figures)),
        ]
    )


def _units(figures: dict[str, Any]) -> dict[str, float]:
    """What one of each takes: ms of processor for a post, and for a MB beyond; bytes."""
    small, large = figures["small"], figures["service"]["8 clients"]
    per_mb = (large["service cpu ms/post"] - small["cpu_ms_per_post"]) / (
        (large["bytes per post"] - small["bytes_per_post"]) / 1e6
    )
    day, followers = figures["day"], figures["followers"]
    sent = followers["pieces"] * followers["readers"]
    connected = followers["readers"] + followers["stalled"]
    return {
        "post": small["cpu_ms_per_post"],
        "mb": per_mb,
        "event": day["counts"]["bytes"] / day["counts"]["events"],
        "piece": 1e6 * followers["cpu_share"] * followers["seconds"] / sent,
        "follower": 1024 * (followers["mib_connected"] - followers["mib_before"]) / connected,
    }


def _by_clients(figures: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    return sorted(figures["service"].items(), key=lambda item: int(item[0].split()[0]))


def _costs(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    unit, small = _units(figures), figures["small"]
    yield "a durable post with next to nothing in it", f"{unit['post']:.2f} ms of processor"
    yield "each MB beyond that", f"{unit['mb']:.1f} ms of processor"
    yield "an event as it is stored (zstd, level 1)", f"{unit['event']:.2f} bytes"
    yield "a piece for one follower", f"{unit['piece']:.0f} µs of processor"
    yield "a follower that is connected", f"{unit['follower']:.0f} KiB"
    yield (
        f"small posts of {small['events_per_post']:.0f} events, eight clients, by the clock",
        f"{small['posts_per_s']:,.0f} a second",
    )


def _core(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    unit = _units(figures)
    for clients, row in _by_clients(figures):
        yield (
            f"durable events in posts of 256 KiB, clients: {clients.split()[0]}",
            f"{row['events/cpu-s'] / 1e6:.1f} million a second",
        )
    yield "programs that post once a second", f"{1000 / unit['post']:,.0f}"
    yield "followers of sessions that are posted to once a second", f"{1e6 / unit['piece']:,.0f}"


def _ways(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for clients, row in _by_clients(figures):
        cells = (
            f"{row[f'{way} MB/s']:.0f}"
            for way in ("service", "null", "files", "jetstream")
            if f"{way} MB/s" in row
        )
        goal = f" (goal {row['goal']:.2f})" if row["goal"] else ""
        yield clients.split()[0], *cells, f"{row['to null']:.2f}{goal}"


def _billion(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    unit = _units(figures)
    row = figures["service"]["8 clients"]
    yield "on the disk", f"{BILLION * unit['event'] / 1e9:.1f} GB"
    yield "processor, in posts of 256 KiB as they are", f"{BILLION / row['events/cpu-s']:.0f} s"
    posts, model = figures["day"]["model"]["posts"], figures["day"]["model"]
    spent = _day_cpu(figures) * BILLION / model["events"]
    yield (
        f"processor, as the day has them: {model['events'] / posts:.0f} in a post",
        f"{spent / 3600:.1f} hours of a core",
    )


def _day_cpu(figures: dict[str, Any]) -> float:
    """Seconds of processor for the day with all its posts."""
    unit, day = _units(figures), figures["day"]
    posts: float = day["model"]["posts"] * unit["post"]
    mb: float = day["counts"]["bytes"] / 1e6
    return (posts + mb * unit["mb"]) / 1000


def _day(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    day, unit = figures["day"], _units(figures)
    model, counts = day["model"], day["counts"]
    yield "sessions", f"{model['sessions']:,}", f"{counts['sessions']:,}"
    yield "events", f"{model['events']:,}", f"{counts['events']:,}"
    yield "bytes, stored", "", f"{counts['bytes']:,}"
    yield "posts", f"{model['posts']:,}", f"{counts['posts']:,} (joined)"
    yield "of them broken off and sent again", "", f"{counts['broken off']:,}"
    yield "followers", "", f"{counts['followers']:,}"
    yield "questions and looks at /metrics", "", f"{counts['questions']:,}"
    yield "seconds by the clock", f"{DAY:,}", f"{day['seconds']:.0f}"
    yield (
        "processor of the service",
        f"{_day_cpu(figures) / 3600:.1f} h, calculated: {_day_cpu(figures) / DAY:.2f} of a core",
        f"{day['cpu_seconds']:.0f} s",
    )
    joined = (counts["posts"] * unit["post"] + counts["bytes"] / 1e6 * unit["mb"]) / 1000
    yield "of it for posts, the rest for readers", "", f"{joined:.0f} s, calculated"
    yield "memory of the service at most", "", f"{day['mib_most']:.0f} MiB"
    busiest = (
        model["busiest_posts"] * unit["post"] / 1000
        + model["busiest_events"] * unit["event"] / 1e6 * unit["mb"] / 1000
    )
    yield "of a core in the busiest hour", f"{busiest:.2f}", ""
    yield "the same for a thousand programs", f"{busiest * 1000 / day['programs']:.2f}", ""
    yield "sessions that are not as they should be afterwards", "0", f"{day['wrong']}"


def _breaks(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    unit = _units(figures)
    files = figures["service"]["8 clients"]["files MB/s"]
    yield (
        "the core",
        f"{1000 / unit['post']:,.0f} posts a second",
        "`tracesvc_loop_lag_seconds` grows, posts wait; programs keep what they have",
        "fewer, larger posts; [replicas](fleet.md)",
    )
    yield (
        "the disk's syncs",
        f"{files:.0f} MB/s of bodies of 256 KiB here",
        "`tracesvc_commit_seconds` grows",
        "a disk that syncs faster: group commit has joined what can be joined",
    )
    yield (
        "room on the disk",
        f"a TB holds {1e12 / unit['event'] / 1e9:,.0f} billion events",
        "507 below `--keep-free`",
        "`--keep`, `--keep-bytes`",
    )
    yield (
        "the core, for followers",
        f"{1e6 / unit['piece']:,.0f} pieces a second, one for each follower and post",
        "followers lag, together: what has come meanwhile is one piece",
        "`--followers`; replicas",
    )
    yield (
        "memory",
        f"{1024 * 1024 / unit['follower']:,.0f} followers a GiB",
        "`tracesvc_resident_bytes` grows",
        "`--followers`; a bound on the container",
    )
    yield (
        "file descriptors",
        f"`ulimit -n`: one a connection, {FILES:,} is enough for what a core carries",
        "connections are not taken",
        "raise it",
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(FIGURES.read_text())), encoding="utf-8")
