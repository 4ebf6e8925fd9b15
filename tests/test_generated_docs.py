"""Pages that are made from the code say what the code says."""

import importlib.util
from pathlib import Path

from tracesvc.events import EVENTS, FrameKind, LossCause, Reason

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


def test_the_page_of_tables_is_up_to_date():
    made = generator().tables_page()
    assert (DOCS / "tables.md").read_text(encoding="utf-8") == made, "run: python -m docs.generate"


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
