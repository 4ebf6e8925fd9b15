"""Pages that are made from the code say what the code says."""

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.day import part
from benchmarks.loadmodel import Load, totals
from docs import capacity
from tracesvc.events import EVENTS, FrameKind, LossCause, Reason
from tracesvc.model.states import TABLE

DOCS = Path(__file__).parent.parent / "docs"


def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_events_is_up_to_date():
    made = generator().page()
    assert (DOCS / "events.md").read_text(encoding="utf-8") == made, "run: python -m docs.generate"


def test_the_diagram_of_states_is_up_to_date_and_has_every_move():
    made = generator().diagram.draw()
    assert (DOCS / "states.svg").read_text(encoding="utf-8") == made, "run: python -m docs.generate"
    assert made.count("marker-end") == sum(map(len, TABLE.values()))
    for row in TABLE.values():
        for event in row:
            assert f">{event}</text>" in made


def test_the_page_of_tables_is_up_to_date():
    made = generator().tables_page()
    assert (DOCS / "tables.md").read_text(encoding="utf-8") == made, "run: python -m docs.generate"


def test_the_vocabulary_of_the_page_is_up_to_date():
    made = generator()
    text = made.VOCABULARY.read_text(encoding="utf-8")
    assert text == made.vocabulary(), "run: python -m docs.generate"


def test_the_page_of_events_names_everything_there_is():
    text = (DOCS / "events.md").read_text(encoding="utf-8")
    for event in EVENTS.values():
        assert f"| {event.number} | `{event.type}` |" in text
        for field in event.fields:
            assert f"| `{field.name}` | {field.storage.value} |" in text
    for member in [*Reason, *LossCause]:
        assert f"| {member.value} | `{member.name.lower()}` | {member.meaning} |" in text
    for kind in FrameKind:
        assert f"| {kind.value} | `{kind.name}` | {kind.meaning} |" in text


def test_the_page_of_capacity_is_up_to_date_and_says_only_what_was_measured():
    figures = json.loads(capacity.FIGURES.read_text())
    made = capacity.page(figures)
    assert capacity.PAGE.read_text(encoding="utf-8") == made, "run: python -m docs.capacity"
    figures["small"]["cpu_ms_per_post"] *= 2
    assert capacity.page(figures) != made


def test_the_load_model_is_the_same_day_for_the_same_seed():
    small = Load(programs=50)
    assert totals(small) == totals(small)
    assert totals(replace(small, seed=2)).check != totals(small).check
    day = json.loads(capacity.FIGURES.read_text())["day"]
    model = asdict(totals(part(day["programs"])))
    assert {key: day["model"][key] for key in ("sessions", "events", "posts", "check")} == {
        key: model[key] for key in ("sessions", "events", "posts", "check")
    }
    assert day["wrong"] == 0
    assert day["counts"]["sessions"] == model["sessions"]
    assert abs(day["counts"]["events"] / model["events"] - 1) < 0.01
