"""What is left out on purpose: it is nowhere, the header says so, and the rest is as true as ever."""

import contextlib
import gc
import io

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, read_tasks_again, trace
from tracesvc.analysis import NotFoundError, latencies, lint, stalls, summarize, why
from tracesvc.model.verify import verify
from tracesvc.recorder.choice import GROUPS, named
from tracesvc.rewrite.anonymize import anonymize
from tracesvc.rewrite.merge import merge

OF_GROUP = {
    "scheduler": {
        *("task_create", "task_waiting", "task_runnable", "task_exit"),
        *("step_start", "step_yield", "step_block"),
    },
    "nurseries": {"nursery_open", "nursery_close", "task_error"},
    "cancels": {"cancel_request", "task_cancelled"},
    "scopes": {"scope_open", "scope_close"},
    "io": {"io_wait_start", "io_wait_end"},
    "stacks": {"task_stack", "step_stack"},
    "threads": {"thread_start", "thread_end"},
    "gc": {"gc_start", "gc_end"},
    "spans": {"span_begin", "span_end"},
    "regions": {"region_begin", "region_end"},
    "logs": {"log"},
    "counters": {"counter", "object_name"},
}
ALWAYS = {"proc_start", "proc_stop"}


async def child(n: int = 1) -> None:
    for _ in range(n):
        with tracesvc.region("child's"):
            tracesvc.log("child")
            await trio.sleep(0.002)


async def other() -> None:
    with tracesvc.span("other's"):
        tracesvc.log("other")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)


async def everything() -> None:
    with tracesvc.span("all"):
        tracesvc.counter("n", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, 2)
            nursery.start_soon(other)
        await trio.to_thread.run_sync(tracesvc.log, "thread")
        gc.collect()


def types(recording: Recording) -> set[str]:
    return {event.type for event in recording.events}


def questions(recording: Recording) -> None:
    """None of them stumbles over what is not there."""
    for question in (summarize, stalls, latencies, lint, why):
        with tracesvc.read(recording.data) as read, contextlib.suppress(NotFoundError):
            assert question(read).as_dict()


def test_everything_is_what_the_groups_have_together():
    recording = trace(everything, stacks="all")
    assert OF_GROUP.keys() == GROUPS.keys()
    assert types(recording) <= ALWAYS.union(*OF_GROUP.values()) - OF_GROUP["scopes"]
    assert "groups" not in recording.header.options


def test_groups_are_added_and_left_out():
    recording = trace(everything, groups=["+scopes", "!cancels"])
    there = types(recording)
    assert there & OF_GROUP["scopes"]
    assert not there & OF_GROUP["cancels"]
    assert recording.header.options["groups"] == [name for name in GROUPS if name != "cancels"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_is_not_asked_for_is_not_recorded(group):
    rest = [name for name in GROUPS if name != group]
    recording = trace(everything, stacks="all", groups=rest)
    there = types(recording)
    assert not there & OF_GROUP[group]
    for name in rest:
        if not (group == "scheduler" and name in ("nurseries", "scopes", "stacks")):
            assert there & OF_GROUP[name], name
    assert recording.header.options["groups"] == rest
    assert not recording.lost
    notes = verify(recording.data).notes
    assert f"only the groups {', '.join(rest)} are recorded" in notes
    questions(recording)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone(group):
    recording = trace(everything, stacks="all", groups=[group])
    assert types(recording) <= ALWAYS | OF_GROUP[group]


def test_nothing_at_all():
    recording = trace(everything, groups=[])
    assert types(recording) <= ALWAYS


def test_annotations_tell_their_task_though_tasks_are_not_recorded():
    with_tasks = trace(everything)
    recording = trace(everything, groups=["logs"])
    assert len({event.task for event in recording.of("log")}) == len(
        {event.task for event in with_tasks.of("log")}
    )
    assert all(event.task for event in recording.of("log"))


# --- some tasks ----------------------------------------------------------------------------------


def names(recording: Recording) -> set[str]:
    return set(recording.names.values())


def test_tasks_by_name_with_what_is_below_them():
    recording = trace(everything, tasks=["*.other"])
    assert names(recording) == {"other", "child"}
    assert len(recording.of("task_create")) == 2
    assert [event.message for event in recording.of("log")] == ["other", "child"]
    story = recording.story("other")
    assert story[0].startswith("other is created by")
    assert story[-1] == "other exits"
    assert "child" in {recording.names.get(e.waker) for e in recording.of("task_runnable")}
    questions(recording)


def test_the_parent_that_is_not_recorded_is_told_by_number():
    recording = trace(everything, tasks=["*.other"])
    whole = trace(everything)
    (created,) = recording.of("task_create", task="other")
    assert created.parent > 0
    assert created.parent not in recording.names
    assert len(whole.of("task_create")) > 2


def test_tasks_that_are_left_out():
    recording = trace(everything, tasks=["!*.child"])
    assert "child" not in names(recording)
    assert {"everything", "other"} <= names(recording)


def test_the_last_pattern_counts():
    recording = trace(everything, tasks=["*.everything", "!*.other", "*.child"])
    assert names(recording) == {"everything", "child"}


def test_a_nursery_and_a_task():
    memories = Memory("nursery"), Memory("task")

    async def program(which: int) -> None:
        async with trio.open_nursery() as inner, trio.open_nursery() as outer:
            outer.start_soon(trio.sleep_forever, name="bystander")
            inner.start_soon(trio.sleep_forever, name="early")
            await wait_all_tasks_blocked()
            task = trio.lowlevel.current_task()
            async with tracesvc.open_tracer(memories[which], tasks=[(inner, task)[which]]):
                inner.start_soon(other)
                await trio.sleep(0.01)
            outer.cancel_scope.cancel()
            inner.cancel_scope.cancel()

    for which, wanted in ((0, {"other", "child"}), (1, {"program", "bystander", "other", "child"})):
        trio.run(program, which)
        found = names(Recording(memories[which].data))
        assert wanted <= found
        assert ("bystander" in found) == ("bystander" in wanted)
        assert "early" in found


def test_a_task_that_lived_before_is_found():
    memory = Memory()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            nursery.start_soon(trio.sleep_forever, name="bystander")
            await trio.lowlevel.checkpoint()
            async with tracesvc.open_tracer(memory, tasks=["*.other"]) as tracer:
                tracer.seal_all()
                await wait_all_tasks_blocked()
                tracer.new_generation()
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)
    recording = Recording(memory.data)
    assert names(recording) == {"other", "child"}
    assert recording.snapshots


def test_a_loss_is_healed_by_the_tasks_that_are_recorded():
    data = b""

    async def main() -> None:
        nonlocal data
        tracer = tracesvc.Tracer(
            buffer_events=16, queue_buffers=2, tasks=["*.main", "!bystander", "!tracesvc*"]
        )
        async with trio.open_nursery() as nursery:
            tracer.start()
            nursery.start_soon(trio.sleep, 3, name="bystander")
            nursery.start_soon(other)
            for i in range(200):  # in one step, and nobody reads
                tracesvc.log(str(i))
            await trio.sleep(0.01)

            async def read() -> None:
                nonlocal data
                while (piece := await tracer.read()) is not None:
                    data += piece

            nursery.start_soon(read, name="tracesvc reader")
            await wait_all_tasks_blocked()
            for _ in range(20):
                tracesvc.log("so that the loss is told of")
            await wait_all_tasks_blocked()
            read_tasks_again(tracer)
            for _ in range(3):
                await wait_all_tasks_blocked()
                for _ in range(16):
                    tracesvc.log("what follows")
            await tracer.stop()
            nursery.cancel_scope.cancel()

    trio.run(main)
    recording = Recording(data)
    assert recording.lost
    healed = [snapshot for snapshot, _ in recording.snapshots if snapshot.proc == 1]
    assert healed
    assert all(len(snapshot.tasks) == 1 for snapshot in healed)  # main


def test_thread_calls_of_other_tasks_are_not_recorded():
    async def calls() -> None:
        await trio.to_thread.run_sync(tracesvc.log, "recorded")

    async def main() -> None:
        await trio.to_thread.run_sync(tracesvc.log, "not recorded")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls)

    recording = trace(main, tasks=["*.calls"])
    assert [event.message for event in recording.of("log")] == ["recorded"]
    assert len(recording.of("thread_start")) == len(recording.of("thread_end")) == 1


def test_it_goes_through_merge_and_anonymize():
    data = trace(everything, tasks=["*.other"]).data
    merged, anonymous = io.BytesIO(), io.BytesIO()
    merge([data, trace(everything).data], merged.write)
    anonymize(data, anonymous.write)
    for written in (merged, anonymous):
        report = verify(written.getvalue())
        assert report.ok, report.violations
        assert any("only the tasks" in note for note in report.notes)
    assert b"other" not in anonymous.getvalue()


# --- some spans ----------------------------------------------------------------------------------


def test_spans_by_name():
    recording = trace(everything, spans=["other*"])
    (begin,), (end,) = recording.of("span_begin"), recording.of("span_end")
    assert (begin.name, begin.parent, end.span) == ("other's", 0, begin.span)
    assert not recording.of("region_begin", "region_end")


def test_a_child_of_a_span_that_is_left_out_has_the_next_one_around_it():
    async def main() -> None:
        with tracesvc.span("a"), tracesvc.span("b"), tracesvc.span("c"):
            tracesvc.log("in c")

    recording = trace(main, spans=["!b"])
    spans = {event.name: event for event in recording.of("span_begin")}
    assert spans.keys() == {"a", "c"}
    assert spans["c"].parent == spans["a"].span
    (log,) = recording.of("log")
    assert log.span == spans["c"].span


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"groups": ["tasks"]}, ValueError, "no group 'tasks'"),
        ({"groups": "gc"}, ValueError, "groups must be a list"),
        ({"tasks": "main"}, ValueError, "tasks must be a list"),
        ({"tasks": [3]}, TypeError, "names, nurseries and tasks"),
        ({"groups": ["gc"], "tasks": ["a"]}, ValueError, "group 'scheduler'"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_at_once(options, error, text):
    with pytest.raises(error, match=text):
        tracesvc.open_tracer(Memory(), **options)


def test_patterns():
    assert named([])("x") is None
    assert named(["a*", "!ab*", "abc"])("abc") is True
    assert named(["a*", "!ab*", "abc"])("abd") is False
    assert named(["a*", "!ab*", "abc"])("ax") is True
    assert named(["a*"])("x") is None
