"""Tasks, steps, parents and nurseries: whole sequences of small programs."""

import threading

import outcome
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.recorder.recording import trace


def test_the_smallest_program():
    async def main() -> None:
        pass

    recording = trace(main)
    of_run = [e for e in recording.events if e.proc == recording.of("task_create")[0].proc]
    assert of_run[0].type == "proc_start"
    assert of_run[-1].type == "proc_stop"
    assert recording.story("main") == ["main is created by <init>", "main runs", "main exits"]
    init = recording.story("<init>")
    assert init[:2] == ["<init> is created by nobody", "<init> runs"]
    assert "<init> is woken by main" in init
    assert init[-1] == "<init> exits"
    assert len(recording.of("task_create")) == len(recording.of("task_exit")) == 3


def in_any_order(story: list[str], a: list[str], b: list[str]) -> list[str]:
    """trio shuffles what is runnable: whichever of the two came first in the story."""
    return [*a, *b] if story.index(a[0]) < story.index(b[0]) else [*b, *a]


def test_two_tasks_that_hand_work_to_each_other():
    async def worker(jobs: trio.MemoryReceiveChannel[int]) -> None:
        await jobs.receive()
        await jobs.receive()

    async def main() -> None:
        send, receive = trio.open_memory_channel[int](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker, receive)
            await wait_all_tasks_blocked()
            await send.send(1)
            await wait_all_tasks_blocked()
            send.send_nowait(2)

    story = trace(main).story("main", "worker")
    assert story == [
        "main is created by <init>",
        "main runs",
        "worker is created by main",
        "main blocks: PARKED",
        "worker runs",
        "worker blocks: CHANNEL_RECEIVE",
        "main is woken by nobody",
        "main runs",
        "worker is woken by main",
        "main yields",
        *in_any_order(
            story[10:],
            ["main runs", "main blocks: PARKED"],
            ["worker runs", "worker blocks: CHANNEL_RECEIVE"],
        ),
        "main is woken by nobody",
        "main runs",
        "worker is woken by main",
        "main blocks: NURSERY",
        "worker runs",
        "main is woken by worker",
        "worker exits",
        "main runs",
        "main exits",
    ]


def test_each_child_has_the_parent_and_the_nursery_it_was_started_in():
    async def child() -> None:
        pass

    async def main() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(child, name="in outer")
            inner.start_soon(child, name="in inner")
            inner.start_soon(child, name="in inner too")

    recording = trace(main)
    creates = {event.name: event for event in recording.of("task_create")}
    main_task = next(
        e.task for e in recording.of("task_create") if recording.names[e.task] == "main"
    )
    children = [creates[name] for name in ("in outer", "in inner", "in inner too")]
    assert [child.parent for child in children] == [main_task] * 3
    outer, inner, inner_too = (child.nursery for child in children)
    assert inner == inner_too
    assert len({0, outer, inner, creates["<init>"].nursery}) == 3
    assert creates["<init>"].parent == 0


def test_nursery_start_moves_a_child_and_its_creation_stays_true():
    """A task given to nursery.start() lives in a nursery of its own, inside the caller, until it has started."""

    async def server(task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started()
        await trio.lowlevel.checkpoint()

    async def starter(nursery: trio.Nursery) -> None:
        await nursery.start(server)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starter, nursery)

    recording = trace(main)
    assert recording.story("starter", "server") == [
        "starter is created by main",
        "starter runs",
        "server is created by starter",
        "starter blocks: NURSERY",
        "server runs",
        "server yields",
        "server runs",
        "starter is woken by server",
        "server yields",
        *in_any_order(
            recording.story("starter", "server")[9:],
            ["starter runs", "starter exits"],
            ["server runs", "server exits"],
        ),
    ]
    (create,) = recording.of("task_create", task="server")
    (block,) = recording.of("step_block", task="starter")
    assert create.nursery == block.object


def test_a_system_task_belongs_to_the_run():
    async def system() -> None:
        pass

    async def main() -> None:
        trio.lowlevel.spawn_system_task(system)
        await trio.lowlevel.checkpoint()

    recording = trace(main)
    (system_task,) = recording.of("task_create", task="system")
    (main_task,) = recording.of("task_create", task="main")
    assert system_task.nursery != main_task.nursery
    assert recording.names[system_task.parent] == "<init>"


def test_task_ids_are_never_used_twice():
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(trio.lowlevel.checkpoint)

    ids = [event.task for _ in range(3) for event in trace(main).of("task_create")]
    assert len(ids) == len(set(ids)) > 30


def test_a_coroutine_that_detaches_itself_ends_its_task():
    async def detaches() -> None:
        await trio.lowlevel.permanently_detach_coroutine_object(outcome.Value(None))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(detaches)

    assert trace(main).story("detaches") == [
        "detaches is created by main",
        "detaches runs",
        "detaches exits",
    ]


def test_a_coroutine_that_detaches_itself_for_a_while_is_parked():
    """Some other loop drives it; coming back it is woken by whoever drove it."""
    tasks: list[trio.lowlevel.Task] = []

    async def detaches() -> None:
        task = trio.lowlevel.current_task()
        tasks.append(task)
        await trio.lowlevel.temporarily_detach_coroutine_object(
            lambda raise_cancel: trio.lowlevel.Abort.FAILED
        )
        await trio.lowlevel.reattach_detached_coroutine_object(task, None)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(detaches)
            await wait_all_tasks_blocked()
            tasks.pop().coro.send("go on")

    assert trace(main).story("detaches") == [
        "detaches is created by main",
        "detaches runs",
        "detaches blocks: PARKED",
        "detaches is woken by main",
        "detaches runs",
        "detaches exits",
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_how_a_task_ends_makes_no_difference_to_its_events(fails):
    async def child() -> None:
        if fails:
            raise ValueError

    async def main() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        except* ValueError:
            pass

    assert trace(main).story("child") == ["child is created by main", "child runs", "child exits"]


def test_the_loop_waits_for_io_only_when_nothing_is_runnable():
    event = threading.Event()

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(event.wait, 0.01)

    recording = trace(main)
    starts, ends = recording.of("io_wait_start"), recording.of("io_wait_end")
    assert starts
    assert len(starts) == len(ends)
    assert all(0 < event.timeout <= 86_400 * 10**9 for event in starts)
    longest = max(end.time - start.time for start, end in zip(starts, ends, strict=True))
    assert longest >= 5_000_000


def test_a_timeout_is_what_the_next_deadline_leaves():
    async def main() -> None:
        with trio.move_on_after(0.02):
            await trio.sleep_forever()

    waits = [event.timeout for event in trace(main).of("io_wait_start")]
    assert 0 < max(wait for wait in waits if wait < 10**9) <= 20_000_000
