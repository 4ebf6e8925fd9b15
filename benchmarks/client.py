"""The cheapest HTTP client that can be: baked requests over plain sockets, one thread per connection.

It runs in a process of its own, so that nothing of it is counted with the server::

    python client.py PORT PATH[,PATH...] CONNECTIONS REQUESTS_PER_CONNECTION [REQUESTS_PER_SECOND]

The requests go round the paths; with a rate, each connection sends its share of it at even intervals.  The last line on
standard output has the seconds that each request took, as text, shortest first.
"""

import socket
import sys
import threading
import time


def converse(
    port: int, paths: list[str], requests: int, interval: float, seconds: list[float]
) -> None:
    """Send the requests over one connection, and read each answer whole before the next one."""
    baked = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.monotonic()
        for i in range(requests):
            if interval:
                due += interval
                time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            connection.sendall(baked[i % len(baked)])
            answer = b""
            wanted = 0
            while not wanted or len(answer) < wanted:
                piece = connection.recv(65536)
                if not piece:
                    raise SystemExit(f"the server closed the connection after {answer!r}")
                answer += piece
                head, found, _ = answer.partition(b"\r\n\r\n")
                if found and not wanted:
                    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                    wanted = len(head) + 4 + int(length)
            seconds.append(time.monotonic() - began)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the server answered {answer[:200]!r}")


def main(port: str, paths: str, connections: str, requests: str, rate: str = "0") -> None:
    seconds: list[float] = []
    interval = int(connections) / float(rate) if float(rate) else 0.0
    arguments = int(port), paths.split(","), int(requests), interval, seconds
    threads = [threading.Thread(target=converse, args=arguments) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(seconds) != int(connections) * int(requests):
        raise SystemExit("not every request was answered")
    print(*(f"{s:.6f}" for s in sorted(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
