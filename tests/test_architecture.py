"""The rooms of the house, and which way the arrows point (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "tracesvc"
MAX_LINES = 600

# room: the rooms that it may import, at any depth of a function too. "face" is tracesvc/__init__.py.
BASE = {"events", "format", "recorder", "sinks", "control", "model"}
QUESTIONS = {"analysis", "export", "plot", "rewrite", "model", "format", "events"}
ROOMS: dict[str, set[str]] = {
    "frozen": set(),
    "events": {"frozen"},
    "format": {"events", "frozen"},
    "recorder": {"format", "events", "frozen"},
    "sinks": {"recorder", "format", "events"},
    "control": {"face", "sinks", "recorder", "format", "events"},
    "model": {"format", "events"},
    "analysis": {"model", "format", "events"},
    "export": {"model", "format", "events"},
    "plot": {"model", "format", "events"},
    "rewrite": {"model", "format", "events"},
    "store": {"model", "format", "events"},
    "service": {"store", "control", "sinks", "recorder", *QUESTIONS},
    "demo": {"face", "sinks", "format"},
    "cli": {"demo", "service", "store", "face", *QUESTIONS, *BASE},
    "testing": {"face", *QUESTIONS, *BASE},
    "asgi": {"control"},
    "face": BASE,
    "__main__": {"cli"},
}

# room or module: the packages that it may import when it is loaded, and those only inside a function.
ZSTD = {"backports", "compression"}
PACKAGES: dict[str, tuple[set[str], set[str]]] = {
    "frozen": (set(), set()),
    "events": (set(), set()),
    "format": ({"msgpack"}, {"numpy", *ZSTD}),
    "recorder": ({"trio", "msgpack", "outcome"}, set()),  # outcome is what trio hands to a task
    "sinks": ({"trio"}, set()),
    "sinks/courier.py": ({"trio"}, {"httpx2"}),
    "sinks/timekeeper.py": (set(), {"httpx2"}),
    "control": ({"trio"}, set()),
    "control/line.py": ({"trio"}, {"httpx2"}),
    "model": (set(), {"numpy"}),
    "model/columns.py": (
        {"numpy"},
        set(),
    ),  # loaded only when columns are asked for, as those below
    "model/phases.py": ({"numpy"}, set()),
    "model/pieces.py": ({"numpy"}, set()),
    "model/lives.py": ({"numpy"}, set()),
    "model/replay.py": ({"numpy"}, set()),
    "model/tables.py": ({"numpy"}, set()),
    "model/arrow.py": ({"numpy"}, {"pyarrow"}),
    "model/order.py": ({"numpy"}, set()),
    "model/parquet.py": (set(), {"pyarrow"}),
    "analysis": ({"numpy"}, {"pyarrow", "duckdb"}),
    "export": ({"numpy"}, {"pyarrow", "httpx2"}),
    "plot": ({"numpy"}, {"resvg_py"}),
    "rewrite": (set(), set()),
    "store": ({"trio", "msgpack"}, {"nats", "obstore", "pyarrow"}),
    "service": (
        {"trio", "msgpack", "numpy", "starlette", "anycorn", "prometheus_client"},
        {"hypercorn", *ZSTD},
    ),
    "demo": ({"trio", "anycorn", "starlette", "httpx2"}, set()),
    "cli": ({"click", "rich"}, {"trio", "httpx2", "msgpack", "starlette", "anycorn", "hypercorn"}),
    "testing": ({"trio", "pytest"}, set()),
    "asgi": (set(), set()),
    "face": (set(), set()),
    "__main__": (set(), set()),
}

MODULES = sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py"))


def room_of(module: str) -> str:
    first = module.split("/", 1)[0].removesuffix(".py")
    return "face" if first == "__init__" else first


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Each imported dotted name of a module, and whether it is imported only when asked for."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += [node.module] if node.module else []
            yield from ((".".join([*base, alias.name]), lazy) for alias in node.names)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or function or typing)

    package = ["tracesvc", *module.split("/")[:-1]]
    yield from visit(ast.parse((HOUSE / module).read_text()), lazy=False)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module):
    room = room_of(module)
    assert room in ROOMS, f"a new room: give {room!r} its rows in ROOMS and PACKAGES"
    loaded, asked_for = PACKAGES.get(module, PACKAGES[room])
    wrong = []
    for name, lazy in imports(module):
        first, *rest = name.split(".")
        if first == "tracesvc":
            other = rest[0] if rest and rest[0] in ROOMS else "face"
            allowed = other == room or other in ROOMS[room]
        else:
            allowed = first in loaded or (lazy and first in asked_for)
            allowed = allowed or (first in sys.stdlib_module_names and first not in ZSTD)
        if not allowed:
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    assert len((HOUSE / module).read_text().splitlines()) <= MAX_LINES


def test_who_traces_a_program_loads_trio_and_msgpack_and_nothing_else():
    code = (
        "import trio, msgpack, sys; before = set(sys.modules); import tracesvc;"
        "print(*sys.modules.keys() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"tracesvc"}
