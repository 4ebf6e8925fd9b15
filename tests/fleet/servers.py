"""Real servers for a fleet, on free ports of this machine: NATS (one, or a cluster), and S3."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from tests.judges import require_program


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Nats:
    """One server; ``routes``: ports of all servers of its cluster, its own first."""

    def __init__(self, directory, *, number=0, route=0, routes=()):
        self.binary = require_program("nats-server", package="nats-server")
        self.port = free_port()
        self.number = number
        self.command = [self.binary, "-a", "127.0.0.1", "-p", str(self.port), "-n", f"n{number}"]
        self.command += ["-js", "-sd", str(directory / f"nats{number}")]
        if routes:
            own = f"nats://127.0.0.1:{route}"
            others = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
            self.command += ["--cluster_name", "test", "--cluster", own, "--routes", others]
            self.command += ["--no_advertise"]  # else clients learn of ways around a proxy
        self.process = None

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def start(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(self.command, **quiet)

    def wait_up(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                    if s.recv(4) == b"INFO":
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError("nats-server does not come up")
            time.sleep(0.02)

    def end(self, how=signal.SIGKILL):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            if how in (signal.SIGKILL, signal.SIGTERM):
                self.process.wait()

    def send(self, how):
        self.process.send_signal(how)


@contextmanager
def nats(directory):
    server = Nats(directory)
    server.start()
    try:
        server.wait_up()
        yield server
    finally:
        server.end()


@contextmanager
def cluster(directory, n=3):
    routes = [free_port() for _ in range(n)]
    servers = [Nats(directory, number=i, route=routes[i], routes=routes) for i in range(n)]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_up()
        yield servers
    finally:
        for server in servers:
            server.end()


S3_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def s3(bucket="traces"):
    """moto's S3 in a process of its own; yields the environment that leads there."""
    port = free_port()
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "moto.server",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(
                    urllib.request.Request(f"{url}/{bucket}", method="PUT"), timeout=5
                )
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield {**S3_KEYS, "AWS_ENDPOINT_URL": url}
    finally:
        process.kill()
        process.wait()


@contextmanager
def environment(values):
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


class Proxy:
    """TCP to one of several ports, in the order given; `cut` stops everything without closing anything."""

    def __init__(self, ports):
        self.ports = list(ports)
        self.open = threading.Event()
        self.open.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def cut(self):
        self.open.clear()

    def mend(self):
        self.open.set()

    def close(self):
        self.open.set()
        self.listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        self.open.wait()
        for port in self.ports:
            try:
                far = socket.create_connection(("127.0.0.1", port), 1)
            except OSError:
                continue
            far.settimeout(None)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()
            return
        near.close()

    def _pump(self, source, sink):
        try:
            while data := source.recv(65536):
                self.open.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
