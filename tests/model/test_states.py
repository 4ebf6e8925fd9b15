"""The table of a task's life, against what it is meant to say, and its picture."""

import itertools

import pytest

from tests.model.small import BEGIN, LOCK, Small
from tracesvc.events import EVENTS, TaskState
from tracesvc.model.states import AFTER, TABLE, State
from tracesvc.model.verify import verify

EVENTS_OF_TASKS = (
    *("task_create", "task_waiting", "task_runnable"),
    *("step_start", "step_yield", "step_block", "task_exit"),
)


def test_every_state_has_a_row_and_every_event_of_tasks_an_effect():
    assert TABLE.keys() == set(State)
    assert AFTER.keys() == set(EVENTS_OF_TASKS)
    assert AFTER.keys() <= {event.type for event in EVENTS.values()}


def test_the_legal_moves_are_these_and_no_others():
    legal = {
        (state.name, event, after.name)
        for state, row in TABLE.items()
        for event, after in row.items()
    }
    assert legal == {
        ("ABSENT", "task_create", "NEW"),
        ("NEW", "task_waiting", "WAITING"),
        ("NEW", "step_start", "RUNNING"),
        ("RUNNABLE", "step_start", "RUNNING"),
        ("RUNNING", "step_yield", "RUNNABLE"),
        ("RUNNING", "step_block", "WAITING"),
        ("RUNNING", "task_exit", "DEAD"),
        ("WAITING", "task_runnable", "RUNNABLE"),
    }


def test_states_have_the_numbers_of_the_wire():
    assert {s.name: s.value for s in TaskState}.items() <= {s.name: s.value for s in State}.items()
    assert State.NEW.on_the_wire == TaskState.RUNNABLE
    assert [s.on_the_wire for s in (State.RUNNABLE, State.RUNNING, State.WAITING)] == [1, 2, 3]


FIELDS = {
    "task_waiting": (LOCK, 9),
    "task_runnable": (0,),
    "step_block": (LOCK, 9),
    "task_create": (2, 51, "a", "a"),
}
WAY_TO = {
    "NEW": [],
    "RUNNABLE": ["step_start", "step_yield"],
    "WAITING": ["step_start", "step_block"],
    "RUNNING": ["step_start"],
}


@pytest.mark.parametrize("state, event", list(itertools.product(WAY_TO, EVENTS_OF_TASKS)))
def test_verify_goes_by_the_table(state, event):
    """Task 3 is brought into the state, then the event happens to it."""
    happenings = [("task_create", 3, 2, 51, "a", "a"), ("step_yield", 2)]
    happenings += [(type_, 3, *FIELDS.get(type_, ())) for type_ in WAY_TO[state]]
    before = verify(Small().events(*BEGIN, *happenings).end())
    assert before.violations == []
    after = verify(Small().events(*BEGIN, *happenings, (event, 3, *FIELDS.get(event, ()))).end())
    legal = event in TABLE[State[state]]
    if event == "task_waiting":  # legal only for what was there before the tracer
        legal = False
    assert after.ok == legal
