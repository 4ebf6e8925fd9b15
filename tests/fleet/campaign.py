"""A fleet under fire, by hand: ``make campaign-fleet``.

Three NATS servers, an S3 server, two replicas and an archiver, all of them processes; clients push sessions through
whichever replica, followers follow them through whichever.  One after the other is killed, stopped, or cut off.
What was acknowledged must be there, once, wherever one asks, and no follower may miss a byte.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from itertools import pairwise
from pathlib import Path

import httpx2
import trio

from tests.fleet.servers import Proxy, cluster, environment, free_port, s3
from tests.streams import joined, session
from tracesvc.store import Fleet, JetStreamStore
from tracesvc.store.archive import Archive

TRACE = {"content-type": "application/vnd.tracesvc"}
SEGMENT = 60_000
SERVE = f"from tracesvc.store import segments; segments.SEGMENT = {SEGMENT}; from tracesvc.cli import main; main()"


class Replica:
    def __init__(self, name, directory, servers, variables, *, archiver):
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.command = [sys.executable, "-c", SERVE, "serve", "--listen", f"127.0.0.1:{self.port}"]
        self.command += ["--data", str(directory / name), "--store", servers]
        self.command += ["--bucket", "s3://traces/fleet", "--forget-after", "20"]
        self.command += ["--archiver" if archiver else "--no-archiver"]
        self.environment = {**os.environ, **variables}
        self.process = None

    def start(self):
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log
            )

    async def wait_up(self):
        with trio.fail_after(60):
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", self.port), 1):
                        return
                except OSError:
                    await trio.sleep(0.1)

    def send(self, how):
        self.process.send_signal(how)
        if how == signal.SIGKILL:
            self.process.wait()

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Campaign:
    def __init__(self, replicas, seed):
        self.replicas = replicas
        self.chance = random.Random(seed)
        self.streams = {}
        self.acknowledged = {}
        self.followed = {}
        self.acks = []
        """(when, client)"""
        self.refused = 0
        self.broken = []
        self.enough = trio.Event()

    async def push(self, client, nursery):
        async with httpx2.AsyncClient(timeout=30) as http:
            while not self.enough.is_set():
                name = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
                events = self.chance.randrange(2000, 12_000)
                frames = session(events, batch=100, lost=3, session=name)
                self.streams[name], self.acknowledged[name] = joined(frames), 0
                nursery.start_soon(self.follow, name)
                while self.acknowledged[name] < len(self.streams[name]):
                    await self.post(http, client, name)
                    await trio.sleep(0.03)

    async def post(self, http, client, name):
        stream, at = self.streams[name], self.acknowledged[name]
        end = at + self.chance.randrange(1, 12_000)
        replica = self.chance.choice(self.replicas)
        url = f"{replica.url}/v1/sessions/{name}/frames?offset={at}"
        try:
            answer = await http.post(url, content=stream[at:end], headers=TRACE)
        except httpx2.HTTPError:
            self.refused += 1
            await trio.sleep(0.2)
            return
        durable = answer.json().get("offset")
        if durable is not None:
            if durable < at:
                self.broken.append(f"{name}: {at} was acknowledged, {replica.name} has {durable}")
                self.enough.set()
            self.acknowledged[name] = max(at, durable)
        if answer.status_code == 200 or (durable is not None and durable > at):
            self.acks.append((time.monotonic(), client))
        elif answer.status_code >= 500:
            self.refused += 1
            await trio.sleep(0.2)

    async def follow(self, name):
        got, stream = b"", self.streams[name]
        async with httpx2.AsyncClient(timeout=60) as http:
            while len(got) < len(stream):
                replica = self.chance.choice(self.replicas)
                url = f"{replica.url}/v1/sessions/{name}/frames?from={len(got)}&follow=true"
                try:
                    async with http.stream("GET", url) as answer:
                        if answer.status_code == 200:
                            async for part in answer.aiter_raw():
                                got += part
                except httpx2.HTTPError:
                    pass
                if not stream.startswith(got):
                    self.broken.append(f"{name}: what a follower got is not what was sent")
                    self.enough.set()
                    return
                await trio.sleep(0.1)
        self.followed[name] = len(got)

    def silence(self, since, until):
        """The longest time without any acknowledgement, and without one for some client."""

        def longest(times):
            times = [since, *[t for t in times if since < t < until], until]
            return max(b - a for a, b in pairwise(times))

        clients = {client for _, client in self.acks}
        each = [longest([t for t, who in self.acks if who == client]) for client in clients]
        return longest([t for t, _ in self.acks]), max(each)


async def faults(campaign, servers, proxy, pause):
    """Name of each fault, while it lasts, and until it is over."""
    replicas, archiver = campaign.replicas[:2], campaign.replicas[2]
    for server in servers:
        yield f"kill -9 of nats {server.number}"
        server.end()
        await trio.sleep(3)
        server.start()
        await trio.sleep(pause)
    for replica in (*replicas, archiver):
        yield f"kill -9 of {replica.name}"
        replica.send(signal.SIGKILL)
        await trio.sleep(2)
        replica.start()
        await trio.sleep(pause)
    for server in servers:
        yield f"nats {server.number} stopped for 5 s"
        server.send(signal.SIGSTOP)
        await trio.sleep(5)
        server.send(signal.SIGCONT)
        await trio.sleep(pause)
    for replica in (replicas[0], archiver):
        yield f"{replica.name} stopped for 5 s"
        replica.send(signal.SIGSTOP)
        await trio.sleep(5)
        replica.send(signal.SIGCONT)
        await trio.sleep(pause)
    yield f"{replicas[0].name} cut off from NATS for 5 s"
    proxy.cut()
    await trio.sleep(5)
    proxy.mend()
    await trio.sleep(pause)


async def run(rounds, clients, pause, seed, directory):
    with cluster(directory) as servers, s3() as variables, environment(variables):
        proxy = Proxy([server.port for server in servers])
        urls = ",".join(server.url for server in servers)
        replicas = [
            Replica("replica 1", directory, proxy.url, variables, archiver=False),
            Replica("replica 2", directory, urls, variables, archiver=False),
            Replica("archiver", directory, urls, variables, archiver=True),
        ]
        try:
            for replica in replicas:
                replica.start()
                await replica.wait_up()
            campaign = Campaign(replicas, seed)
            async with trio.open_nursery() as nursery:
                for client in range(clients):
                    nursery.start_soon(campaign.push, client, nursery)
                await trio.sleep(5)
                print(f"{'fault':38} without any ack  without one for a client", flush=True)
                for _ in range(rounds):
                    fault, since = None, 0.0
                    async for name in faults(campaign, servers, proxy, pause):
                        if fault is not None:
                            tell(campaign, fault, since)
                        fault, since = name, time.monotonic()
                        if campaign.enough.is_set():
                            break
                    if campaign.enough.is_set():
                        break
                    tell(campaign, fault, since)
                campaign.enough.set()
                with trio.move_on_after(240) as late:
                    while len(campaign.followed) < len(campaign.streams):  # noqa: ASYNC110
                        await trio.sleep(0.2)
                if late.cancelled_caught:
                    missing = len(campaign.streams) - len(campaign.followed)
                    campaign.broken.append(f"{missing} followers did not come to the end")
                nursery.cancel_scope.cancel()
            await judge(campaign, urls, directory)
            return campaign
        finally:
            for replica in replicas:
                replica.end()
            proxy.close()


def tell(campaign, fault, since):
    anyone, one = campaign.silence(since, time.monotonic())
    print(f"{fault:38} {anyone:13.2f} s {one:22.2f} s", flush=True)


async def judge(campaign, urls, directory):
    """Read every session anew: over HTTP from each replica, and by a store of our own."""
    async with httpx2.AsyncClient(timeout=60) as http:
        for name, stream in campaign.streams.items():
            acknowledged = campaign.acknowledged[name]
            for replica in campaign.replicas:
                answer = await http.get(f"{replica.url}/v1/sessions/{name}/frames")
                got = answer.content if answer.status_code == 200 else b""
                if len(got) < acknowledged or not stream.startswith(got):
                    campaign.broken.append(
                        f"{name}: {replica.name} has {len(got)} bytes of {acknowledged}"
                    )
            facts = (await http.get(f"{campaign.replicas[0].url}/v1/sessions/{name}")).json()
            if acknowledged == len(stream) and not facts["ledger"]["closed"]:
                campaign.broken.append(f"{name}: its ledger does not close")
    archive = Archive("s3://traces/fleet")
    objects = [await archive.segments(name) for name in campaign.streams]
    fleet = Fleet(urls, bucket="s3://traces/fleet", archiver=False)
    async with JetStreamStore.open(fleet, directory / "judge") as store:
        kept = await store.link.subjects(store.frames, "tracesvc.frames.*")
    print(
        f"{len(campaign.streams)} sessions, {sum(campaign.acknowledged.values()):,} bytes acknowledged in "
        f"{len(campaign.acks):,} posts, {campaign.refused} refused or broken off; "
        f"{sum(map(len, objects))} objects of {sum(map(bool, objects))} sessions, "
        f"{len(kept)} sessions in the stream still"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="where logs are kept; else nowhere")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tracesvc-fleet-") as directory:
        root = chosen.logs or Path(directory)
        root.mkdir(parents=True, exist_ok=True)
        campaign = trio.run(run, chosen.rounds, chosen.clients, chosen.pause, chosen.seed, root)
    for line in campaign.broken[:20]:
        print("BROKEN:", line)
    print("0 acknowledged bytes lost, all followers gapless" if not campaign.broken else "FAILED")
    sys.exit(1 if campaign.broken else 0)


if __name__ == "__main__":
    main()
