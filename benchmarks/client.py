"""The client for machines without a C compiler: the same options and output as client.c.

It needs more CPU per message than a fast server does. Then it is the client that limits the
throughput, and a server that is not kept busy finds fewer messages per poll and pays more for each.
The harness says so above the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass

STAMP = 16
PATIENCE = 3  # seconds for the last echoes


@dataclass
class Connection:
    sock: socket.socket
    number: int
    sequence: int = 0
    message: bytes = b""
    sent: int = 0
    received: bytes = b""
    sent_at: float = 0.0


def usage(pid: int) -> dict[str, int] | None:
    """CPU time of a process in ns, and what else the platform tells; None: it tells nothing."""
    if sys.platform == "linux":
        # The clock id that clock_getcpuclockid() makes of a pid: live and in ns, where
        # /proc/PID/stat has ticks of 10 ms.
        cpu = time.clock_gettime_ns((~pid << 3) | 2)
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/schedstat") as schedstat:
            waited = int(schedstat.read().split()[1])
        user, system = int(fields[11]), int(fields[12])
        return {"cpu_ns": cpu, "user_ticks": user, "system_ticks": system, "waited_ns": waited}
    try:
        import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return None
    times = psutil.Process(pid).cpu_times()
    user, system = int(times.user * 1e6), int(times.system * 1e6)
    return {"cpu_ns": (user + system) * 1000, "user_ticks": user, "system_ticks": system}


class Client:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.body = bytes(ord("a") + i % 26 for i in range(options.size - STAMP - 1)) + b"\n"
        self.selector = selectors.DefaultSelector()
        self.messages = 0
        self.errors = 0
        self.stopping = False  # finish what is under way, begin nothing
        self.latencies: list[float] = []

    def connect(self) -> None:
        for number in range(self.options.connections):
            sock = socket.create_connection((self.options.host, self.options.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            connection = Connection(sock, number)
            self.selector.register(sock, selectors.EVENT_READ, connection)
            self.start(connection)

    def start(self, c: Connection) -> None:
        c.message = b"%04x%012x" % (c.number, c.sequence) + self.body
        c.sequence += 1
        c.sent = 0
        c.received = b""
        if self.options.latency:
            c.sent_at = time.perf_counter()
        self.send(c)

    def send(self, c: Connection) -> None:
        with contextlib.suppress(BlockingIOError):
            c.sent += c.sock.send(memoryview(c.message)[c.sent :])
        wanted = selectors.EVENT_READ
        if c.sent < len(c.message):
            wanted |= selectors.EVENT_WRITE
        if self.selector.get_key(c.sock).events != wanted:
            self.selector.modify(c.sock, wanted, c)

    def ready(self, c: Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.send(c)
        if not events & selectors.EVENT_READ:
            return
        data = c.sock.recv(len(c.message) + 1)
        c.received += data
        if not data or len(c.received) > len(c.message):
            raise ConnectionError("the echo is too short or too long")
        if len(c.received) < len(c.message):
            return
        if c.received != c.message:
            raise ConnectionError("the echo differs")
        if self.stopping:
            self.selector.unregister(c.sock)
            return
        self.messages += 1
        if self.options.latency:
            self.latencies.append(time.perf_counter() - c.sent_at)
        self.start(c)

    def serve_until(self, end: float) -> None:
        while time.perf_counter() < end and self.selector.get_map():
            for key, events in self.selector.select(0.05):
                try:
                    self.ready(key.data, events)
                except OSError as error:
                    print(f"client: {error}", file=sys.stderr)
                    self.errors += 1
                    self.selector.unregister(key.fileobj)
                    key.data.sock.close()

    def run(self) -> dict[str, float]:
        self.connect()
        self.serve_until(time.perf_counter() + self.options.warmup)
        self.messages = 0
        self.latencies.clear()
        before = usage(self.options.pid) if self.options.pid else None
        begin = time.perf_counter()
        self.serve_until(begin + self.options.seconds)
        seconds = time.perf_counter() - begin
        after = usage(self.options.pid) if self.options.pid else None
        result = {"messages": self.messages, "seconds": seconds, "errors": self.errors}
        # An echo that never becomes whole would only show as a little less throughput.
        self.stopping = True
        self.serve_until(time.perf_counter() + PATIENCE)
        result["stuck"] = len(self.selector.get_map())
        if before and after:
            result |= {key: after[key] - before[key] for key in after}
        if self.latencies:
            ordered = sorted(self.latencies)
            result["p50_us"] = ordered[len(ordered) // 2] * 1e6
            result["p99_us"] = ordered[len(ordered) * 99 // 100] * 1e6
        return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["echo"], default="echo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--latency", action="store_true")
    print(json.dumps(Client(parser.parse_args()).run()))


if __name__ == "__main__":
    main()
