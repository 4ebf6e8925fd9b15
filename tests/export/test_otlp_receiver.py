"""A push that a receiver which is not ours takes: oteltap, an OTLP receiver in Rust."""

import asyncio
import platform
import socket
import threading
from collections import Counter

import pytest

from tests.export.conftest import events_of
from tracesvc.export import export
from tracesvc.export.otlp_push import Push


class Receiver:
    """It lives in an asyncio loop of its own, in a thread."""

    def __init__(self, wanted):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.spans = []
        self._wanted = wanted
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self):
        from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

        settings = OtelTapHttpProtobufReceiverSettings(http_port=self.port)
        try:
            async with OtelTapHttpProtobufReceiver(settings) as receiver:
                self._ready.set()
                async with asyncio.timeout(60):
                    while len(self.spans) < self._wanted:
                        async for span in receiver.stream_traces():
                            self.spans.append(span)
                            if len(self.spans) >= self._wanted:
                                break
        finally:
            self._ready.set()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc):
        self._thread.join()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oteltap is made for x86-64 only")
@pytest.mark.parametrize("which", ["whole", "demo"])
def test_a_receiver_gets_every_span(request, which):
    source = request.getfixturevalue(which)
    data = source.read_bytes() if which == "demo" else source.data
    begun = [event for event in events_of(data) if event.type == "span_begin"]
    with Receiver(len(begun)) as receiver, Push(f"http://127.0.0.1:{receiver.port}") as send:
        done = export(data, "otlp", send)
    assert done.written["span"] == len(begun) == len(receiver.spans)
    assert Counter(s.name for s in receiver.spans) == Counter(e.name for e in begun)
    assert len({span.span_id for span in receiver.spans}) == len(begun)
    assert all(s.end_time_unix_nano >= s.start_time_unix_nano for s in receiver.spans)
