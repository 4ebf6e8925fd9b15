"""A session that is being written: followed, paused while one looks at the past, resumed without a seam."""

import threading
import time

import msgpack

from tests.traces import program
from tests.web.conftest import Service
from tracesvc.format import FrameDecoder
from tracesvc.service.overview import main

FAR = 200_000
"""events per second that are to be kept up with"""


def parts(stream, events):
    """The stream in pieces of about so many events, each of whole frames; and how many events are in each."""
    decoder = FrameDecoder()
    decoder.feed(stream.data)
    frames = list(decoder)
    counted, made, held, count = 0, [], b"", 0
    for ours, frame in zip(stream.frames, frames, strict=True):
        held += bytes(frame.data)
        count += ours.count
        if count >= events:
            made.append((held, count))
            counted += count
            held, count = b"", 0
    return [*made, (held, count)]


class Feeder(threading.Thread):
    """Pushes a stream piece by piece, so many events per second; `pause` holds it."""

    def __init__(self, service, stream, pieces, rate):
        super().__init__(daemon=True)
        self.service, self.stream, self.pieces, self.rate = service, stream, pieces, rate
        self.offset = 0
        self.going = threading.Event()
        self.going.set()

    def push(self, piece):
        self.service.push(self.stream.session, self.offset, piece)
        self.offset += len(piece)

    def run(self):
        for piece, count in self.pieces:
            self.going.wait()
            self.push(piece)
            time.sleep(count / self.rate)


def test_following_pausing_and_the_end(tab, service):
    stream = program(31, events=6000, runs=1, batch=40)
    pieces = parts(stream, 100)
    feeder = Feeder(service, stream, pieces[5:], 3000)
    for piece, _ in pieces[:5]:
        feeder.push(piece)
    tab.page.goto(f"{service.url}/#/s/{stream.session}")
    tab.settled()
    tab.until("tracesvc.open.live?.state === 'live' && tracesvc.open.live.following")
    feeder.start()
    first = tab.ask("tracesvc.open.outline.ended")
    tab.until("first => tracesvc.view.timeline.end > first && tracesvc.open.live.rate > 0", first)
    assert "live" in tab.page.locator("#bar").inner_text()

    # Looking at the past pauses it; nothing drags one along.
    tab.page.keyboard.press("w")
    tab.page.keyboard.press("ArrowLeft")
    tab.until("!tracesvc.open.live.following")
    assert "paused" in tab.page.locator("#bar").inner_text()
    view = tab.view()
    seen = tab.ask("tracesvc.open.live.seen")
    tab.until("seen => tracesvc.open.live.seen > seen", seen)
    assert tab.view() == view
    behind = "document.querySelector('#bar .mark-button').innerText"
    said = tab.ask(behind)
    assert "behind" in said
    tab.until(f"said => {behind} !== said", said)
    tab.page.keyboard.press("l")
    tab.until("tracesvc.open.live.following")
    tab.until("end => tracesvc.view.timeline.end > end", view[1])
    feeder.join(60)

    # All came, each once, and the page says that it is over.
    tab.until("tracesvc.open.live.state === 'ended'")
    rest = stream.events[-1].time
    tab.until("count => tracesvc.open.outline.events === count", len(stream.events))
    began = int(tab.ask("String(tracesvc.open.outline.began)"))
    assert tab.ask("tracesvc.open.outline.ended") >= rest - began
    tab.page.locator("#bar .mark.ended").wait_for()


def test_a_service_that_goes_away_is_waited_for(tab, tmp_path):
    own = Service(tmp_path)
    tab.in_trouble = True  # the console tells of the connections that were refused
    tab.service = own
    try:
        stream = program(32, events=3000, runs=1, batch=40)
        pieces = parts(stream, 100)
        half = len(pieces) // 2
        feeder = Feeder(own, stream, pieces, 10**9)
        for piece, _ in pieces[:half]:
            feeder.push(piece)
        tab.page.goto(f"{own.url}/#/s/{stream.session}/events")
        tab.until("globalThis.tracesvc?.open?.live?.state === 'live'")
        tab.page.locator("[data-tab=timeline]").click()
        tab.settled()
        counted = "tracesvc.open.live.seen"
        before = tab.ask("tracesvc.open.outline.events")
        own.stop()
        tab.until("tracesvc.open.live.state === 'reconnecting'")
        assert "reconnecting" in tab.page.locator("#bar").inner_text()
        own.start()
        for piece, _ in pieces[half:]:
            feeder.push(piece)
        tab.until("tracesvc.open.live.state === 'ended'")
        # What the stream brought after the outline is the rest, no event twice and none left out.
        assert before + tab.ask(counted) == len(stream.events)
    finally:
        own.stop()


def test_it_keeps_up_with_many_events(tab, service):
    stream = program(33, events=20_000, runs=1, batch=4000)
    pieces = parts(stream, 4000)
    feeder = Feeder(service, stream, pieces[1:], FAR)
    feeder.push(pieces[0][0])
    tab.page.goto(f"{service.url}/#/s/{stream.session}")
    tab.settled()
    tab.until("tracesvc.open.live?.state === 'live'")
    feeder.start()
    feeder.join(60)
    tab.until("count => tracesvc.open.outline.events === count", len(stream.events))
    assert tab.ask("tracesvc.open.live.state") == "ended"


def test_the_first_picture_is_rough_and_becomes_exact(tab, service):
    """The overview that large sessions have is drawn until they are indexed."""
    stream = program(41, events=4000, runs=1)
    service.push(stream.session, 0, stream.data)
    directory = service.data / "sessions" / stream.session
    main([str(directory), str(len(stream.data))])
    answers = []
    tab.page.on("response", lambda answer: answers.append(answer.url))
    held = []  # the exact answer comes when the rough one has been looked at
    tab.page.route("**/outline", lambda route: held.append(route))  # noqa: PLW0108  # it takes marks
    tab.page.goto(f"{service.url}/#/s/{stream.session}")
    tab.until("globalThis.tracesvc?.view?.timeline && tracesvc.open.outline.rough")
    tab.ask("tracesvc.view.timeline.ready()")
    tab.page.get_by_text("indexing").wait_for()
    task = tab.ask("[...tracesvc.view.timeline.contents.keys()].find(row => row[0] === 't')")
    assert tab.ask("row => tracesvc.view.timeline.contents.get(row).rough", task)
    shown = tab.ask("document.querySelectorAll('.label').length")
    assert shown > 5
    for route in held:
        route.continue_()
    tab.page.unroute("**/outline")
    tab.until("tracesvc.open.outline.indexed === 1 && !tracesvc.open.outline.rough")
    tab.settled()
    assert not tab.ask("row => tracesvc.view.timeline.contents.get(row).rough", task)
    assert tab.page.locator(".indexing").is_hidden()
    assert tab.ask("document.querySelectorAll('.label').length") == shown
    assert any("rough=true" in url for url in answers)


def test_a_part_is_drawn_while_it_is_indexed(tab, service):
    stream = program(42, events=4000, runs=1)
    service.push(stream.session, 0, stream.data)
    session = f"**/v1/sessions/{stream.session}"
    whole = {}

    def part(route):
        """As the service answers while half of it is indexed."""
        answer = msgpack.unpackb(route.fetch().body())
        if not whole:
            whole.update(answer)
            half = answer["ended"] // 2
            answer |= {"indexed": 0.5, "ended": half, "events": answer["events"] // 2}
        route.fulfill(body=msgpack.packb(answer), content_type="application/msgpack")

    tab.page.route(f"{session}/outline?rough=true", part)
    tab.page.goto(f"{service.url}/#/s/{stream.session}")
    tab.until("globalThis.tracesvc?.open?.outline.indexed === 1")
    tab.settled()
    assert tab.view() == [0, whole["ended"]]  # all of what it has become is in view
    assert tab.ask("tracesvc.open.outline.events") == len(stream.events)


def test_what_waits_for_the_index_says_so(tab, service):
    stream = program(43, events=2000, runs=1)
    service.push(stream.session, 0, stream.data)
    tab.page.goto(f"{service.url}/#/s/{stream.session}")
    tab.settled()
    answers = iter([0.25, 0.5])

    def slowly(route):
        share = next(answers, None)
        if share is None:
            route.continue_()
        else:
            route.fulfill(status=202, json={"indexed": share})

    tab.ask(
        """() => { const side = document.querySelector('.side'); globalThis.seen = [];
             new MutationObserver(() => seen.push(side.textContent)).observe(side, {childList: true}); }"""
    )
    tab.page.route("**/sums?*", slowly)
    tab.page.keyboard.press("m")
    tab.page.locator(".side [data-of=all]").wait_for()
    seen = tab.ask("seen")
    assert "25 %" in seen[0]
    assert "50 %" in seen[1]
