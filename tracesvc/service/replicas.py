"""Replicas of one service find each other's agents: questions and answers over NATS, nothing of which is kept.

Every replica tells once a second that it is there.  Who asks something asks all of them at once, and knows from whom an
answer must come: one that does not, or ends halfway, is told of in the answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias
from uuid import uuid4

import trio

from tracesvc.store import StoreError

__all__ = ["Item", "Messages", "Replicas", "Say"]

log = logging.getLogger("tracesvc.service")

BEAT: Final = 1.0
"""seconds between signs of life"""
GONE_AFTER: Final = 5.0
"""seconds without one until a replica counts as gone"""
ANSWER: Final = 2.0
"""seconds for a replica to say how much it has to say, and beyond what the question takes for the rest"""
MANY: Final = 1000
"""questions that are being answered at once, at most; more go without an answer"""
PART: Final = 64
"""things in one message"""

Item: TypeAlias = dict[str, Any]


class Messages(Protocol):
    """What a `tracesvc.store.link.Link` does."""

    @property
    def connected(self) -> bool: ...

    async def hint(self, subject: str, data: bytes) -> None: ...

    async def listen(
        self, subject: str, heard: Callable[[str, bytes], None]
    ) -> Callable[[], Awaitable[None]]: ...


class Say:
    """What an answer is given with: first how many things there are to say, then those."""

    def __init__(self, tell: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._tell = tell

    async def total(self, n: int) -> None:
        await self._tell({"total": n})

    async def items(self, items: Sequence[Item]) -> None:
        for at in range(0, len(items), PART):
            await self._tell({"items": items[at : at + PART]})


Answer: TypeAlias = Callable[[dict[str, Any], Say], Awaitable[None]]


@dataclass(slots=True)
class _Asked:
    """A question that is out."""

    wanted: set[str]
    """replicas that an answer must come from"""
    counts: dict[str, int] = field(default_factory=dict)
    """replica -> things that it says it has"""
    items: list[Item] = field(default_factory=list)
    had: dict[str, int] = field(default_factory=dict)
    news: trio.Event = field(default_factory=trio.Event)

    def silent(self) -> set[str]:
        """Those that have not said how much they have."""
        return self.wanted - self.counts.keys()

    def unfinished(self) -> set[str]:
        """Those that have not said all."""
        return {name for name, n in self.counts.items() if self.had.get(name, 0) < n}

    async def until(self, missing: Callable[[], set[str]], give_up: float) -> None:
        """Wait until nothing is missing, or for so long; ``give_up``: a time of trio's clock."""
        with trio.move_on_at(give_up):
            while missing():
                self.news = trio.Event()
                await self.news.wait()


class Replicas:
    """This one, and what it knows of the others; `run` is its task."""

    def __init__(self, messages: Messages, fleet: str) -> None:
        """``fleet``: what subjects begin with."""
        self.own: Final = uuid4().hex[:16]
        self._messages = messages
        self._all, self._to = f"{fleet}.replicas", f"{fleet}.replica."
        self._seen: dict[str, float] = {}
        self._asked: dict[str, _Asked] = {}
        self._waiting: list[dict[str, Any]] = []
        self._arrived = trio.lowlevel.ParkingLot()
        self._busy = 0
        self._answer: Answer | None = None

    @property
    def others(self) -> set[str]:
        """Those that were heard of lately."""
        late = trio.current_time() - GONE_AFTER
        return {name for name, seen in self._seen.items() if seen > late}

    async def run(self, answer: Answer) -> None:
        """Be one of them until cancelled.

        ``answer``: is given each question, and says what there is to say to it.
        """
        self._answer = answer
        while True:
            try:
                leave = [
                    await self._messages.listen(subject, self._heard)
                    for subject in (self._all, self._to + self.own)
                ]
            except StoreError as exc:
                log.warning("other replicas cannot be heard: %s", exc)
                await trio.sleep(BEAT)
                continue
            break
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                while True:
                    while not self._waiting:
                        await self._arrived.park()
                    nursery.start_soon(self._say, self._waiting.pop(0))
        finally:
            with trio.move_on_after(1, shield=True):
                await self._tell(self._all, {"bye": True})
                for one in leave:
                    await one()

    async def ask(
        self, question: dict[str, Any], takes: float, only: str | None = None
    ) -> tuple[list[Item], dict[str, str]]:
        """What the others say, and who did not say all: replica -> why.

        ``takes``: seconds that they may need; ``only``: the one that is asked.
        """
        wanted = self.others if only is None else {only}
        if not wanted:
            await trio.lowlevel.checkpoint()
            return [], {}
        if not self._messages.connected:
            await trio.lowlevel.checkpoint()
            return [], dict.fromkeys(wanted, "NATS cannot be reached")
        number, began = uuid4().hex, trio.current_time()
        asked = self._asked[number] = _Asked(wanted)
        try:
            where = self._all if only is None else self._to + only
            await self._tell(where, {"ask": number, "takes": takes, **question})
            await asked.until(asked.silent, began + ANSWER)
            silent = asked.silent()
            await asked.until(asked.unfinished, began + takes + ANSWER)
        finally:
            del self._asked[number]
        why = dict.fromkeys(silent - asked.counts.keys(), f"no answer within {ANSWER:g} s")
        why |= dict.fromkeys(asked.unfinished(), "it did not say all that it had to say")
        return asked.items, why

    # --- inside ------------------------------------------------------------------------------------

    def _heard(self, _subject: str, data: bytes) -> None:
        try:
            said = json.loads(data)
            sender = str(said["from"])
        except (ValueError, TypeError, KeyError):
            log.warning("what is said among replicas is not understood: who else writes there?")
            return
        if sender == self.own:
            return
        if said.get("bye"):
            self._seen.pop(sender, None)
            return
        if sender not in self._seen or said.get("hello"):
            self._queue({"greet": sender})
        self._seen[sender] = trio.current_time()
        if said.get("answer") is not None:
            self._take(sender, said)
        elif said.get("ask") is not None:
            self._queue(said)

    def _take(self, sender: str, said: dict[str, Any]) -> None:
        """Part of an answer."""
        asked = self._asked.get(str(said["answer"]))
        if asked is None:
            return  # it comes too late
        if "total" in said:
            asked.counts[sender] = int(said["total"])
        items = said.get("items", [])
        asked.items += items
        asked.had[sender] = asked.had.get(sender, 0) + len(items)
        asked.news.set()

    def _queue(self, said: dict[str, Any]) -> None:
        if len(self._waiting) + self._busy < MANY:
            self._waiting.append(said)
            self._arrived.unpark()

    async def _say(self, said: dict[str, Any]) -> None:
        if "greet" in said:
            await self._tell(self._to + said["greet"], {"here": True})
            return
        assert self._answer is not None
        where, number = self._to + str(said["from"]), said["ask"]

        async def tell(part: dict[str, Any]) -> None:
            await self._tell(where, {"answer": number, **part})

        self._busy += 1
        try:
            await self._answer(said, Say(tell))
        except Exception:
            log.exception("a question of another replica could not be answered")
        finally:
            self._busy -= 1

    async def _beat(self) -> None:
        hello = True
        while True:
            await self._tell(self._all, {"hello": hello})
            hello = False
            late = trio.current_time() - GONE_AFTER
            self._seen = {name: seen for name, seen in self._seen.items() if seen > late}
            await trio.sleep(BEAT)

    async def _tell(self, subject: str, said: dict[str, Any]) -> None:
        await self._messages.hint(subject, json.dumps({"from": self.own, **said}).encode())
