"""``python -m benchmarks [NAME ...] [--json]``: run benchmarks; exit code 1 if a bar is missed."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from typing import Final

NAMES: Final = (
    "size",
    "steps",
    "reader",
    "analysis",
    "ingest",
    "history",
    "clocks",
    "service",
    "startup",
    "governor",
    "exports",
    "page",
    "attach",
    "annotations",
    "overhead",
)
"""in the order in which they run; each module has ``main(json) -> int``"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of tables")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    missed = []
    for name in arguments.names or NAMES:
        began = time.monotonic()
        if not arguments.json:
            print(f"--- {name}", flush=True)
        if importlib.import_module(f"benchmarks.{name}").main(arguments.json):
            missed.append(name)
        print(f"({name}: {time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    if missed:
        print(f"missed a bar: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
