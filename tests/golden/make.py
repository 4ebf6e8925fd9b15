"""Makes the golden traces of the present format version: ``python -m tests.golden.make``.

To be run once per format version, at its release, and never again for it: what lies here must stay readable.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

from tests.traces import program
from tracesvc.format import compress
from tracesvc.format.records import VERSION
from tracesvc.model.reader import read
from tracesvc.model.verify import verify

HERE = Path(__file__).parent
KINDS = {"whole": 0.0, "lossy": 0.15}


def described(data: bytes) -> dict:
    """What every later version must read in it."""
    report = verify(data)
    trace = read(data)
    events = list(trace)
    # Only what the vocabulary of the trace itself names: later versions give old events new, empty fields.
    fields = {name: [field[0] for field in row] for _, name, row in trace.header.events}
    lines = [
        json.dumps(
            [e.type, e.time, e.proc, e.seq, *(getattr(e, n) for n in fields[e.type])], default=repr
        )
        for e in events
    ]
    return {
        "events": len(events),
        "types": dict(sorted(Counter(e.type for e in events).items())),
        "lost": sum(report.account.lost.values()),
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def main() -> None:
    for kind, losses in KINDS.items():
        stream = program(20 + VERSION, events=1600, losses=losses)
        frames = [compress(f.data) if f.number % 2 else f.data for f in stream.frames]
        data = b"".join(frames)
        (HERE / f"version-{VERSION}-{kind}.trace").write_bytes(data)
        (HERE / f"version-{VERSION}-{kind}.json").write_text(
            json.dumps(described(data), indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
