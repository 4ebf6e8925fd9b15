"""Two programs: ``ask`` starts ``answer``, maybe on another clock, and sends it a ``traceparent``. Both push to URL.

``python -m tests.service.fleet_programs ask URL [words before the command that starts the other...]``
"""

import sys
import time

if sys.argv[1] == "answer":  # its time of day is two hours off, before anybody looks
    _right = time.time_ns
    time.time_ns = lambda: _right() - 7200 * 10**9

import subprocess
import threading

import trio

import tracesvc
from tracesvc.recorder.exchanges import exchanges
from tracesvc.sinks import PushSink

MODULE = "tests.service.fleet_programs"


heard = threading.Event()
add = exchanges.add


def hear(exchange):
    add(exchange)
    heard.set()


exchanges.add = hear


async def known():
    """The clocks of this program and the service have been compared."""
    assert await trio.to_thread.run_sync(heard.wait, 60)


async def ask(url, before):
    async with tracesvc.open_tracer(PushSink(url), name="asks", drain_timeout=30):
        await known()
        command = [*before, sys.executable, "-m", MODULE, "answer", url]
        async with trio.open_nursery() as nursery:
            with tracesvc.span("order"):
                process = await nursery.start(start, command)
                assert await line(process.stdout) == b"ready\n"
                with tracesvc.span("ask"):
                    await process.stdin.send_all(tracesvc.traceparent().encode() + b"\n")
                    assert await line(process.stdout) == b"done\n"
            await process.stdin.aclose()


async def line(stream):
    """One line, or what there is of it at the end."""
    data = b""
    while not data.endswith(b"\n") and (part := await stream.receive_some()):
        data += part
    return data


async def start(command, task_status):
    await trio.run_process(
        command,
        stdin=subprocess.PIPE,
        capture_stdout=False,
        stdout=subprocess.PIPE,
        task_status=task_status,
    )


async def answer(url):
    async with tracesvc.open_tracer(PushSink(url), name="answers", drain_timeout=30):
        await known()
        print("ready", flush=True)
        parent = await trio.to_thread.run_sync(sys.stdin.readline)
        with tracesvc.span("answer", traceparent=parent.strip()):
            with tracesvc.span("look up"):
                await trio.sleep(0.01)
        print("done", flush=True)


if __name__ == "__main__":
    what, url, *words = sys.argv[1:]
    trio.run(ask, url, words) if what == "ask" else trio.run(answer, url)
