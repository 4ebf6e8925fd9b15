"""`watch`: channels, locks, semaphores, limiters and conditions whose state is recorded at the moment it changes.

What changes it are a few functions of trio's without an await in them, and tasks that begin to wait for the object or
are woken from that.  The former are wrapped while a session records and something is watched, and put back at its stop;
the latter the hooks see.  Every look compares with the one before, and what has changed becomes a counter.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import trio

from tracesvc.events import Counter, ObjectName, Reason
from tracesvc.recorder.annotations import counter
from tracesvc.recorder.clock import now
from tracesvc.recorder.identity import number_of
from tracesvc.recorder.native import native
from tracesvc.recorder.texts import cut_name
from tracesvc.recorder.tree import task_id

if TYPE_CHECKING:
    from tracesvc.recorder.session import Session

__all__ = ["Objects", "touched", "watch"]

Thing = TypeVar("Thing")


class Kind(NamedTuple):
    """What is looked at in objects of one kind."""

    reason: Reason
    name: str
    values: dict[str, Callable[[Any], float]]
    """end of a counter's name -> its value"""
    changes: tuple[tuple[type, str], ...]
    """functions that change it"""


def _owner(lock: Any) -> int:
    owner = lock._owner
    return 0 if owner is None else task_id(owner)


_CHANNEL: Final = Kind(
    Reason.CHANNEL_RECEIVE,
    "channel",
    {
        "depth": lambda state: len(state.data),
        "senders": lambda state: len(state.send_tasks),
        "receivers": lambda state: len(state.receive_tasks),
    },
    ((trio.MemorySendChannel, "send_nowait"), (trio.MemoryReceiveChannel, "receive_nowait")),
)
_LOCK: Final = Kind(
    Reason.LOCK,
    "lock",
    {"owner": _owner, "waiting": lambda lock: len(lock._lot)},
    ((trio.Lock, "acquire_nowait"), (trio.Lock, "release")),
)
_SEMAPHORE: Final = Kind(
    Reason.SEMAPHORE,
    "semaphore",
    {"value": lambda semaphore: semaphore._value, "waiting": lambda semaphore: len(semaphore._lot)},
    ((trio.Semaphore, "acquire_nowait"), (trio.Semaphore, "release")),
)
_LIMITER: Final = Kind(
    Reason.LIMITER,
    "limiter",
    {
        "borrowed": lambda limiter: len(limiter._borrowers),
        "waiting": lambda limiter: len(limiter._lot),
    },
    (
        (trio.CapacityLimiter, "acquire_on_behalf_of_nowait"),
        (trio.CapacityLimiter, "release_on_behalf_of"),
        (trio.CapacityLimiter, "_wake_waiters"),
    ),
)
_CONDITION: Final = Kind(
    Reason.CONDITION, "condition", {"waiting": lambda condition: len(condition._lot)}, ()
)
KINDS: Final[tuple[tuple[tuple[type, ...], Kind], ...]] = (
    ((trio.MemorySendChannel, trio.MemoryReceiveChannel), _CHANNEL),
    ((trio.Lock, trio.StrictFIFOLock), _LOCK),
    ((trio.Semaphore,), _SEMAPHORE),
    ((trio.CapacityLimiter,), _LIMITER),
    ((trio.Condition,), _CONDITION),
)


class Watched:
    """One object; kept for as long as it lives."""

    __slots__ = ("_last", "_thing", "kind", "name", "number")

    def __init__(self, thing: Any, kind: Kind, name: str | None) -> None:
        self.kind: Final = kind
        self.number: Final = number_of(thing)
        self.name: str = cut_name(name) if name is not None else f"{kind.name} {self.number}"
        self._thing: Final = weakref.ref(thing, self._forget)
        self._last: dict[str, float] = {}

    def _forget(self, _: object) -> None:
        touched.pop(self.number, None)

    def begin(self, session: Session) -> None:
        """A session records it from here on."""
        self._last.clear()
        extend = session.process.extend
        extend((ObjectName.number, now(), int(self.kind.reason), self.number, self.name))
        thing = self._thing()
        if thing is not None:
            for end, value in self.kind.values.items():
                found = self._last[end] = value(thing)
                extend((Counter.number, now(), f"{self.name}.{end}", float(found), 0))

    def touch(self) -> None:
        """Record what has changed since the last look."""
        thing = self._thing()
        if thing is None:
            return
        for end, value in self.kind.values.items():
            found = value(thing)
            if found != self._last.get(end):
                self._last[end] = found
                counter(f"{self.name}.{end}", found)

    def __call__(self) -> None:
        """For the hooks: a task waits for it now, or does no more; never raises."""
        try:
            self.touch()
        except Exception:
            touched.pop(self.number, None)  # it is not what it was in the trios known here


touched: Final[dict[int, Watched]] = {}
"""number of an object that is watched -> what is known of it; the hooks ask for it"""
if native is not None:
    native.watched(touched)


def watch(thing: Thing, *, name: str | None = None) -> Thing:
    """Record the state of an object at the moment it changes, from now on, whenever a tracer runs; gives it back.

    ::

        send, receive = trio.open_memory_channel[Job](100)
        tracesvc.watch(send, name="jobs")  # jobs.depth, jobs.senders, jobs.receivers
        lock = tracesvc.watch(trio.Lock(), name="db")  # db.owner (a task's number), db.waiting

    ``name`` is what the trace calls it, in counters and where a task waits for it; else its kind and number.  Either
    end of a memory channel stands for the channel.  The object is not kept alive.

    Raises:
      TypeError: It is no memory channel, lock, semaphore, capacity limiter or condition of trio's.
    """
    found = _find(thing)
    if found is None:
        kinds = ", ".join(kind.name for _, kind in KINDS)
        raise TypeError(f"only these can be watched: {kinds}; not {type(thing).__qualname__}")
    watched = _enter(*found, name)
    for objects in tuple(_open):
        objects.begin(watched)
    return thing


def _enter(thing: Any, kind: Kind, name: str | None) -> Watched:
    number = number_of(thing)
    watched = touched.get(number)
    if watched is None or name is not None:
        watched = touched[number] = Watched(thing, kind, name)
    return watched


def _find(thing: Any) -> tuple[Any, Kind] | None:
    """What has the state, and of what kind it is."""
    for types, kind in KINDS:
        if isinstance(thing, types):
            return (getattr(thing, "_state") if kind is _CHANNEL else thing), kind  # noqa: B009
    return None


class Objects:
    """Wraps the functions for one session, once something is watched."""

    def __init__(self, session: Session, *, everything: bool = False) -> None:
        """``everything``: all objects of these kinds, from when something happens to them."""
        self._session: Final = session
        self._everything: Final = everything
        self._originals: list[tuple[type, str, Any, Any]] = []
        self._wrapping: Final = threading.Lock()
        self.missing: Final[list[str]] = []
        """what this trio has not"""

    def open(self) -> None:
        """The session begins."""
        _open.append(self)
        for watched in list(touched.values()):
            self.begin(watched)
        if self._everything:
            self._wrap()

    def begin(self, watched: Watched) -> None:
        """Something is watched."""
        self._wrap()
        watched.begin(self._session)

    def close(self) -> None:
        """Put the originals back; where somebody else has replaced ours since then, theirs stays and ours is idle."""
        if self in _open:
            _open.remove(self)
        for owner, name, original, ours in reversed(self._originals):
            if owner.__dict__.get(name) is ours:
                setattr(owner, name, original)
        self._originals = []

    def _wrap(self) -> None:
        with self._wrapping:
            if self._originals:
                return
            for owner, name in _functions():
                original = owner.__dict__.get(name)
                if original is None:
                    self.missing.append(f"objects: trio has no {owner.__qualname__}.{name}")
                    continue
                ours = trio.lowlevel.enable_ki_protection(self._touching(original))
                self._originals.append((owner, name, original, ours))
                setattr(owner, name, ours)

    def _touching(self, original: Any) -> Any:
        session, everything = self._session, self._everything

        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(self, *args, **kwargs)
            finally:
                if session.open:
                    _touch(self, session, everything)

        return call


_open: Final[list[Objects]] = []
"""of the session that is on"""


def _functions() -> Iterator[tuple[type, str]]:
    """The classes that have the functions, and their names."""
    for _, kind in KINDS:
        for known, name in kind.changes:
            yield next((c for c in known.__mro__ if name in c.__dict__), known), name


def _touch(thing: Any, session: Session, everything: bool) -> None:
    try:
        found = _find(thing)
        if found is None:
            return
        watched = touched.get(number_of(found[0]))
        if watched is not None:
            watched.touch()
        elif everything:
            _enter(*found, None).begin(session)
    except Exception:  # nothing of ours raises into the program
        return
