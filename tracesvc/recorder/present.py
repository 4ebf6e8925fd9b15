"""What there is in a run when its recording begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tracesvc.events import ScopeOpen, TaskCreate, TaskWaiting
from tracesvc.recorder.annotations import open_annotations
from tracesvc.recorder.clock import now
from tracesvc.recorder.identity import number_of
from tracesvc.recorder.reasons import reason_of
from tracesvc.recorder.recording import ENTRY_TASK
from tracesvc.recorder.tree import is_suspended, live_tasks, open_scopes, origin_of, task_id

if TYPE_CHECKING:
    from tracesvc.recorder.hooks import RunHooks
    from tracesvc.recorder.proc import Proc
    from tracesvc.recorder.session import Session

__all__ = ["record_present"]


def record_present(
    session: Session, run: RunHooks, proc: Proc, caller: trio.lowlevel.Task | None
) -> None:
    """Every live task of this run as if it had just come to be, and what is open in it; ``caller`` runs."""
    contexts = []
    tasks = None if session.choice is None else session.choice.tasks
    for task in live_tasks():
        number = task_id(task)
        contexts.append((number, task.context))
        if task.name == ENTRY_TASK:
            run.recording.entry_task = number
        if tasks is not None and not tasks.choose(task):
            continue
        proc.extend((TaskCreate.number, now(), number, *origin_of(task)))
        for nursery in task.child_nurseries:
            run.recording.nursery_open(nursery)
        if "scopes" in session.structure:
            for scope in open_scopes(task):
                rest = (-1, int(scope.shield))
                proc.extend((ScopeOpen.number, now(), number, number_of(scope), rest))
        if task is not caller and is_suspended(task):
            time, (reason, thing) = now(), reason_of(task)
            proc.extend((TaskWaiting.number, time, number, reason, thing))
            run.recording.waits(task, time, reason)
        if len(proc.records) >= proc.capacity:
            proc.seal()
    open_annotations(session, proc, contexts)
