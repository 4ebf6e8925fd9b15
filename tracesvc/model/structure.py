"""Nurseries, cancel scopes and outcomes of one run, replayed and checked.

What is open is told by events alone, not by snapshots: from a gap on, or where the stream begins in the middle,
a nursery or scope that nobody has heard of is none that is held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tracesvc.events import CancelSource, Outcome

__all__ = ["Structure"]


@dataclass(slots=True)
class Nursery:
    """An open one, of which the beginning is known."""

    owner: int
    children: int = 0
    errors: int = 0


class Structure:
    """The nests of one run; tells ``complain(code, text)`` what cannot be."""

    def __init__(self, complain: Callable[[str, str], None]) -> None:
        self._complain: Final = complain
        self._nurseries: dict[int, Nursery] = {}
        self._scopes: dict[int, int] = {}
        """open scope -> its task, where it was told that it opened"""
        self._cancelled: set[int] = set()
        """scopes whose cancellation was asked for"""
        self._raised = 0
        """the task that ends now by an exception"""
        self.orderly = True
        """no task has left a nursery open"""
        self.whole = True
        """nothing is missing since the run, or the trace, began"""

    def lose_track(self) -> None:
        """Events are missing."""
        self.whole = False
        self._nurseries.clear()
        self._scopes.clear()
        self._cancelled.clear()
        self._raised = 0

    # --- nurseries -------------------------------------------------------------------------------

    def nursery_open(self, task: int, nursery: int) -> None:
        if nursery <= 0 or task <= 0:
            self._complain("nursery", f"task {task} opens nursery {nursery}")
        elif nursery in self._nurseries:
            self._complain("nursery", f"nursery {nursery} is opened again")
        else:
            self._nurseries[nursery] = Nursery(task)

    def child(self, nursery: int) -> None:
        """A task is created in it."""
        found = self._nurseries.get(nursery)
        if found is not None:
            found.children += 1

    def nursery_close(self, task: int, nursery: int, children: int, errors: int) -> None:
        if children < 0 or errors < 0 or nursery <= 0:
            self._complain(
                "nursery", f"nursery {nursery} closes with {children} children, {errors} errors"
            )
        found = self._nurseries.pop(nursery, None)
        if found is None:
            if self.whole and self.orderly:
                self._complain("nursery", f"nursery {nursery} closes, which is not open")
        elif found.owner != task:
            self._complain("nursery", f"task {task} closes nursery {nursery} of {found.owner}")
        elif found.children != children:
            self._complain(
                "nursery", f"nursery {nursery} had {found.children} children, not {children}"
            )
        elif found.errors != errors and self.whole:
            self._complain("nursery", f"{found.errors} exceptions reached it, not {errors}")

    # --- ends of tasks ---------------------------------------------------------------------------

    def task_error(self, task: int, nursery: int) -> None:
        if nursery < 0 or task <= 0:
            self._complain("error", f"an exception of task {task} reaches nursery {nursery}")
        if not nursery:
            self._raised = task
            return
        found = self._nurseries.get(nursery)
        if found is None:
            if self.whole and self.orderly:
                self._complain("error", f"it reaches nursery {nursery}, which is not open")
        else:
            found.errors += 1
        if found is not None and found.owner != task:
            self._raised = task

    def task_exit(self, task: int, outcome: int) -> None:
        if outcome not in _OUTCOMES:
            self._complain("outcome", f"task {task} ends with outcome {outcome}")
        elif self.whole and outcome and (outcome == Outcome.RAISED) != (self._raised == task):
            said = "none" if self._raised != task else "an"
            self._complain("outcome", f"task {task} ends with {outcome} and {said} exception")
        self._raised = 0
        for kept in (self._nurseries, self._scopes):
            if kept:
                self._forget(task)
                break

    def _forget(self, task: int) -> None:
        """What a task that has ended left open: it is misnested, and what comes of it may be out of order."""
        self.orderly = self.orderly and task not in {n.owner for n in self._nurseries.values()}
        self._nurseries = {n: one for n, one in self._nurseries.items() if one.owner != task}
        self._scopes = {n: owner for n, owner in self._scopes.items() if owner != task}

    # --- scopes ----------------------------------------------------------------------------------

    def cancel_request(self, scope: int, task: int, source: int, nursery: int) -> None:
        if scope <= 0 or task < 0:
            self._complain("scope", f"scope {scope} of task {task} is cancelled")
        elif scope in self._cancelled:
            self._complain("scope", f"scope {scope} is cancelled again")
        self._cancelled.add(scope)
        if source not in _SOURCES:
            self._complain("scope", f"scope {scope} is cancelled for source {source}")
        elif source in _OF_NURSERIES and not nursery:
            self._complain("scope", f"scope {scope}, of no nursery, is cancelled by one: {source}")
        self._check_owner(scope, task)
        found = self._nurseries.get(nursery)
        if found is not None and found.owner != task:
            self._complain("scope", f"nursery {nursery} of {found.owner} is one of task {task}")

    def _check_owner(self, scope: int, task: int) -> None:
        owner = self._scopes.get(scope)
        if owner is not None and owner != task:
            self._complain("scope", f"scope {scope} of task {owner} is one of task {task}")

    def task_cancelled(self, task: int, scope: int) -> None:
        if scope not in self._cancelled and self.whole:
            self._complain("scope", f"task {task} is cancelled by scope {scope}, which is not")

    def scope_open(self, task: int, scope: int, timeout: int, shield: int) -> None:
        if scope <= 0 or timeout < -1 or shield not in (0, 1):
            self._complain(
                "scope", f"task {task} enters scope {scope}: timeout {timeout}, shield {shield}"
            )
        elif scope in self._scopes:
            self._complain("scope", f"scope {scope} is entered again")
        self._scopes[scope] = task

    def scope_close(self, task: int, scope: int, caught: int) -> None:
        if caught not in (0, 1):
            self._complain("scope", f"scope {scope} has caught {caught}")
        self._check_owner(scope, task)
        if self._scopes.pop(scope, None) is None and self.whole:
            self._complain("scope", f"task {task} leaves scope {scope}, which is not open")


_OUTCOMES: Final = {int(outcome) for outcome in Outcome}
_SOURCES: Final = {int(source) for source in CancelSource}
_OF_NURSERIES: Final = {CancelSource.ERROR, CancelSource.INTERRUPT, CancelSource.ABANDONED}
