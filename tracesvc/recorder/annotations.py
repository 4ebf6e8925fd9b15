"""What a program says about itself: spans, regions, logs, counters.

While no tracer runs, `log` and `counter` return at once, and `span` and `region` only keep their place in the context:
so that a tracer that starts in the middle finds the ones that are open.  Nothing here ever raises into the program.

Where there is a native part, `span`, `region`, `log` and `counter` are those of ``csrc/annotations.c``, and these are
their twins; `TWINS` has them in any case.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import sys
from collections import Counter as Tally
from collections.abc import Callable
from contextvars import Context, ContextVar
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import trio

from tracesvc.events import Counter, Log, RegionBegin, RegionEnd, SpanBegin, SpanEnd
from tracesvc.recorder.clock import now
from tracesvc.recorder.native import native
from tracesvc.recorder.session import local
from tracesvc.recorder.texts import cut_name, cut_text

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc
    from tracesvc.recorder.session import Session

__all__ = [
    "LEVELS",
    "TWINS",
    "Region",
    "Span",
    "counter",
    "log",
    "on_failed_span",
    "open_annotations",
    "recording",
    "region",
    "span",
]

MAX_TEXT: Final = 16 << 10
"""bytes of UTF-8 in a log message"""
MAX_VALUE: Final = 1 << 10
"""bytes of UTF-8 in a text attribute"""
MAX_ATTRIBUTES: Final = 64
MAX_LEVEL: Final = (1 << 31) - 1
MAX_PAYLOAD: Final = 256 << 10
"""bytes of texts and attributes in one buffer; more seals it early"""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_next_id: Final = itertools.count(1).__next__


class _Recording:
    """Where annotations go."""

    session: Session | None = None
    """the session that is on, if any"""


recording: Final = _Recording() if native is None else cast(_Recording, native.Annotating())
current_span: Final[ContextVar[Span | None]] = ContextVar("tracesvc_span", default=None)
current_region: Final[ContextVar[Region | None]] = ContextVar("tracesvc_region", default=None)
current_proc: Final[ContextVar[Proc | None]] = ContextVar("tracesvc_proc", default=None)
"""set by ``tracer.proc(name)``: what this task and its children emit goes there"""

repairs: Final[Tally[str]] = Tally()
"""misuse that was put right, by kind"""


# Before CPython 3.12 a collection may begin in the middle of C code.  If that is about to copy the context or to set a
# variable in it, and a finalizer sets one too, Python loses what it was looking at and crashes.  So a span or region
# that begins within a collection is recorded, and does not become the current one.
if sys.version_info >= (3, 12):

    def _within_collection() -> bool:
        return False

elif native is not None:
    gc.callbacks.insert(0, native.collection_begins)
    _within_collection: Callable[[], bool] = native.within_collection
else:
    _collecting: Final[list[int]] = []
    """the thread in which a collection is under way"""

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C that came up here would be swallowed
    def _collection_begins(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            _collecting[:] = (get_ident(),)
            if (
                gc.callbacks[-1] is not _collection_ends
            ):  # what others do at the end is within it, too
                with contextlib.suppress(ValueError):
                    gc.callbacks.remove(_collection_ends)
                gc.callbacks.append(_collection_ends)

    @trio.lowlevel.enable_ki_protection
    def _collection_ends(phase: str, info: dict[str, Any]) -> None:
        if phase == "stop":
            _collecting.clear()

    gc.callbacks.insert(0, _collection_begins)

    def _within_collection() -> bool:
        return bool(_collecting) and _collecting[0] == get_ident()


def _writer(session: Session) -> tuple[Proc, int]:
    """(proc to write to, id of the task that runs or is worked for)."""
    proc = local.proc
    if proc is None or proc.session is not session or not proc.live:
        proc = session.proc_of_thread()
    own = current_proc.get()
    if own is not None and own.session is session and own.live and own.thread == proc.thread:
        return own, proc.records.running
    return proc, proc.records.running


def _emit(session: Session, proc: Proc, record: tuple[Any, ...], payload: int = 0) -> None:
    proc.extend(record)
    if payload:
        proc.payload += payload
    if len(proc.records) >= proc.capacity or proc.payload > MAX_PAYLOAD:
        proc.seal(everything=proc.payload > MAX_PAYLOAD)


class _Work:
    """What spans and regions have in common: each is entered once and left once, and knows what it lies in."""

    __slots__ = (
        "_attributes",
        "_unplaced",
        "begun_in",
        "ended",
        "entered",
        "id",
        "name",
        "outer",
    )

    kind: ClassVar[str]

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self.id: Final = _next_id()
        self.name: Final = name
        self._attributes: Final = attributes
        self.outer: Any = None
        """the one of its kind that was current where it began; it may be the parent task's, and may have ended"""
        self.begun_in: Session | None = None
        """the session that has its begin"""
        self.entered = self.ended = False
        self._unplaced = False
        """it never became the current one"""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r}>"

    def _enter(self, current: ContextVar[Any]) -> bool:
        """Become the current one; False if this was entered before."""
        if self.entered:
            repairs[f"{self.kind} begun twice"] += 1
            return False
        self.entered = True
        outer = self.outer = current.get()
        if (
            outer is not None and outer.ended
        ):  # what that lay in is of no more use: misuse must not make a chain for ever
            outer.outer = _innermost_open(outer.outer)
        if _within_collection():
            self._unplaced = True
        else:
            current.set(self)
        return True

    def _leave(self, current: ContextVar[Any], *, elsewhere: bool = False) -> bool:
        """Be no longer the current one; False if this was left before, or never entered."""
        if self.ended or not self.entered:
            repairs[f"{self.kind} ended {'twice' if self.ended else 'before it began'}"] += 1
            return False
        self.ended = True
        inner = current.get()
        if inner is self:
            self._uncover(current)
        elif not self._unplaced:
            while inner is not None and inner.outer is not self:
                inner = inner.outer
            if inner is None:
                elsewhere = True
            else:
                inner.outer = self.outer
                if not elsewhere:
                    repairs[f"{self.kind} ended out of order"] += 1
        if elsewhere:
            repairs[f"{self.kind} ended elsewhere"] += 1
        return True

    def _uncover(self, current: ContextVar[Any]) -> None:
        """The outer one is the current one again."""
        if not _within_collection():
            current.set(self.outer)


class Span(_Work):
    """A logical piece of work; made by `span`."""

    __slots__ = ()
    kind = "span"

    def __enter__(self) -> Span:
        session = recording.session
        if self._enter(current_span) and session is not None:
            self.begin(session, *_writer(session))
        return self

    def begin(self, session: Session, proc: Proc, task: int) -> None:
        """Record the begin in ``session``."""
        name, given = self.name, self._attributes
        if session.policy is not None:
            kept = session.policy.work(self, proc, task)
            if kept is None:
                return
            name, given = kept
        attributes, size = _attributes(given)
        parent, self.begun_in = _known(self.outer, session), session
        session.open_spans.add(self.id)
        rest = (task, cut_name(name), attributes)
        _emit(session, proc, (SpanBegin.number, now(), self.id, parent, rest), size)

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if exc is not None and _listeners and not self.ended:
            _tell_failure(self.name, exc)
        session = recording.session
        if self._leave(current_span) and session is not None and self.begun_in is session:
            proc, task = _writer(session)
            _emit(session, proc, (SpanEnd.number, now(), self.id, task, 0))
            session.open_spans.discard(self.id)


class Region(_Work):
    """A lexical piece of work inside one task; made by `region`."""

    __slots__ = ("_key", "below", "swept", "task")
    kind = "region"

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        super().__init__(name, attributes)
        self.task = 0
        """the task it belongs to"""
        self.below: Region | None = None
        """the next open region of that task, or of a thread that works for none, outwards"""
        self._key = 0
        self.swept = False
        """ended by the end of one around it; its own is still to come"""

    def __enter__(self) -> Region:
        session = recording.session
        if self._enter(current_region) and session is not None:
            self.begin(session, *_writer(session))
        return self

    def begin(self, session: Session, proc: Proc, task: int) -> None:
        """Record the begin in ``session``, as of ``task``."""
        name, given = self.name, self._attributes
        if session.policy is not None:
            kept = session.policy.work(self, proc, task)
            if kept is None:
                return
            name, given = kept
        attributes, size = _attributes(given)
        self.task, self.begun_in = task, session
        self._key = task or -proc.number
        self.below = session.open_regions.get(self._key)
        session.open_regions[self._key] = self
        _emit(
            session,
            proc,
            (RegionBegin.number, now(), self.id, task, (cut_name(name), attributes)),
            size,
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self.swept:
            self.swept = False
            if current_region.get() is self:
                self._uncover(current_region)
            return
        session = recording.session
        if session is None or self.begun_in is not session:
            self._leave(current_region)
            return
        proc, task = _writer(session)
        if not self._leave(current_region, elsewhere=task != self.task):
            return
        # Those inside it end with it: regions of a task nest in the trace, whatever happened.
        innermost = session.open_regions[self._key]
        if self.below is None:
            del session.open_regions[self._key]
        else:
            session.open_regions[self._key] = self.below
        region: Region | None = innermost
        while region is not None:
            below, region.below = region.below, None
            region.swept, region.ended = region is not self, True
            _emit(session, proc, (RegionEnd.number, now(), region.id, self.task, 0))
            region = None if region is self else below


def _innermost_open(found: Any) -> Any:
    while found is not None and found.ended:
        found = found.outer
    return found


def _known(found: Span | None, session: Session) -> int:
    """The id of ``found``, or of the next span around it that the session has the begin of; 0: there is none."""
    while found is not None and found.begun_in is not session:
        found = found.outer
    return 0 if found is None else found.id


def span(name: str, /, **attributes: Any) -> Span:
    """A context manager for a logical piece of work: a request, a job.

    It may be used across awaits; tasks and ``to_thread`` threads started inside belong to it, and spans begun there are
    its children.  ``attributes`` are kept as they are if they are numbers, texts (1 KiB), None, True, False or bytes;
    anything else as its repr.
    """
    return Span(name, attributes)


def region(name: str, /, **attributes: Any) -> Region:
    """A context manager for a piece of code in one task; regions of a task nest. Attributes as for `span`.

    One that is ended twice, out of order or by another task is put right in the trace and counted in
    ``Tracer.statistics().repairs``.
    """
    return Region(name, attributes)


def log(message: str, /, *, level: str | int = "info", **attributes: Any) -> None:
    """A message at this moment, in this task and span; at most 16 KiB of it are kept.

    ``level`` is a number as in `logging`, or one of debug, info, warning, error, critical.
    """
    session = recording.session
    if session is None:
        return
    proc, task = _writer(session)
    number = (
        min(max(level, 0), MAX_LEVEL)
        if type(level) is int
        else LEVELS.get(cut_name(level), LEVELS["info"])
    )
    if session.policy is not None:
        kept = session.policy.log(proc, task, number, message, attributes)
        if kept is None:
            return
        message, attributes = kept
    text, cut = cut_text(message, MAX_TEXT)
    values, size = _attributes(attributes)
    rest = (number, cut, text, values)
    record = (Log.number, now(), task, _known(current_span.get(), session), rest)
    _emit(session, proc, record, size + len(text))


def counter(name: str, value: float, /) -> None:
    """A number that changes over time has this value from now on."""
    session = recording.session
    if session is None:
        return
    proc, task = _writer(session)
    try:
        number = float(value)
    except Exception:  # an annotation never raises
        number = math.nan
    if not math.isfinite(number):
        repairs["counter without a number"] += 1
        return
    if session.policy is not None and not session.policy.counter(proc, task):
        return
    _emit(session, proc, (Counter.number, now(), cut_name(name), number, task))


_PLAIN: Final = (bool, int, float, type(None))


def _attributes(attributes: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
    """(what goes into the trace, about how many bytes that is)."""
    if not attributes:
        return None, 0
    kept: dict[str, Any] = {}
    size = 0
    for key, value in itertools.islice(attributes.items(), MAX_ATTRIBUTES):
        if type(value) is int and not -(1 << 63) <= value < 1 << 64:
            # 640 digits are the least that Python can be told to be content with
            value = (
                str(value) if value.bit_length() < 2048 else f"<int of {value.bit_length()} bits>"
            )
        elif type(value) is bytes:
            value = value[:MAX_VALUE]
        elif type(value) not in _PLAIN:
            value = cut_name(value, MAX_VALUE)
        kept[cut_name(key)] = value
        size += len(key) + (len(value) if isinstance(value, (str, bytes)) else 8)
    return kept, size


def open_annotations(session: Session, proc: Proc, tasks: list[tuple[int, Context]]) -> None:
    """Record the begin of what was open before ``session``: the spans and regions in the contexts of the live tasks.

    ``tasks`` has parents before children: a region in the contexts of both is the parent's.
    """
    for task, context in tasks:
        for span, region in _innermost(context):
            for found in (*_open(span, session), *_open(region, session)):
                found.begin(session, proc, task)


def spans_around(context: Context) -> list[Any]:
    """The current span in ``context`` and those that it lies in, innermost first."""
    found: Any = max(
        (span for span, _ in _innermost(context) if span is not None),
        key=lambda span: span.id,
        default=None,
    )
    around = []
    while found is not None:
        around.append(found)
        found = found.outer
    return around


def _innermost(context: Context) -> list[tuple[Any, Any]]:
    """Span and region, natively made or not."""
    places = [(context.get(current_span), context.get(current_region))]
    return places if native is None else [*places, native.position_of(context)]


def _open(innermost: Any, session: Session) -> list[Any]:
    """The open ones that the session has no begin of, outermost first."""
    found = []
    while innermost is not None:
        if not innermost.ended and innermost.begun_in is not session:
            found.append(innermost)
        innermost = innermost.outer
    return found[::-1]


@contextlib.contextmanager
def writing_to(proc: Proc) -> Any:
    """What the current task and its children emit goes to ``proc`` (where they run in its thread)."""
    if native is not None:
        native.own_proc(current_proc)
    token = current_proc.set(proc)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # left in another context
            current_proc.reset(token)


def _repair(kind: str, what: str) -> None:
    repairs[f"{kind} {what}"] += 1


TWINS: Final[dict[str, Callable[..., Any]]] = {
    "span": span,
    "region": region,
    "log": log,
    "counter": counter,
}
"""in Python; the module's own ones may be native"""

if not TYPE_CHECKING and native is not None:
    signatures = (
        "(name, /, **attributes)",
        "(name, /, **attributes)",
        "(message, /, *, level='info', **attributes)",
        "(name, value, /)",
    )
    documents = tuple(
        f"{name}{signature}\n--\n\n{twin.__doc__}".encode()
        for (name, twin), signature in zip(TWINS.items(), signatures, strict=True)
    )
    native.annotations(cut_name, cut_text, _attributes, _repair, LEVELS, documents)
    span, region, log, counter = (getattr(native, name) for name in TWINS)


_listeners: Final[list[Callable[[str, BaseException], None]]] = []


def on_failed_span(listener: Callable[[str, BaseException], None], listen: bool) -> None:
    """Have ``listener`` called with the name and the exception of every span that ends in one, or no more.

    It is called in the middle of the program, in whatever thread, and must take no time.
    """
    if listen:
        _listeners.append(listener)
    elif listener in _listeners:
        _listeners.remove(listener)
    if native is not None:
        native.on_failure(_tell_failure if _listeners else None)


def _tell_failure(name: str, exc: BaseException) -> None:
    for listener in _listeners:
        try:
            listener(name, exc)
        except Exception:  # it is nobody's fault in here
            _repair("span", "failed and nobody could be told")
