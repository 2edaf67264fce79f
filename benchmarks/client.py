"""The client for TLS, and for machines without a C compiler: options and output as client.c.

It needs more CPU per message than client.c. A server that is not kept busy finds fewer messages per
poll and pays more for each, so figures of the two clients do not compare; the harness says above
them when this one stood in. Over TLS it is always this one, and keeps up with a Python server: in
both of them OpenSSL does most of the work.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import ssl
import sys
import time

STAMP = 16
PATIENCE = 3  # seconds for the last echoes
CHUNK = bytes(range(256)) * 256  # a download repeats it
TWO_CHUNKS = 2 * CHUNK
DOWNLOAD = 1600 * len(CHUNK)
RECORD = 16 * 1024  # OpenSSL hands out no more at once
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
ANSWER = b"Hello, world!"
RESPONSE = re.compile(
    rb"HTTP/1\.1 200 [^\r]*\r\n(?:.+\r\n)*content-length: *(\d+)\r\n(?:.+\r\n)*\r\n", re.IGNORECASE
)
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


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


class Echo:
    """A connection that sends a message, waits for the whole echo, checks it, sends the next."""

    type = socket.SOCK_STREAM
    unit = 1  # what makes up an operation

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.number = number
        self.sequence = 0
        self.open()

    def open(self) -> None:
        self.sock = self.client.connect(self.type)
        self.shaking = isinstance(self.sock, ssl.SSLSocket)
        self.client.selector.register(self.sock, selectors.EVENT_READ, self)
        self.begin()

    def close(self) -> None:
        self.client.selector.unregister(self.sock)
        self.sock.close()

    def begin(self) -> None:
        self.prepare()
        self.sent = 0
        self.received = b""
        self.sent_at = time.perf_counter()
        self.send()

    def prepare(self) -> None:
        self.message = b"%04x%012x" % (self.number, self.sequence) + self.client.body
        self.sequence += 1
        self.expected = len(self.message)

    def send(self) -> None:
        wanted = selectors.EVENT_READ
        try:
            if self.shaking:
                self.sock.do_handshake()  # type: ignore[attr-defined]
                self.shaking = False
            self.sent += self.sock.send(memoryview(self.message)[self.sent :])
            if self.sent < len(self.message):
                wanted |= selectors.EVENT_WRITE
        except ssl.SSLWantReadError:
            pass
        except NOT_NOW:
            wanted |= selectors.EVENT_WRITE
        if self.client.selector.get_key(self.sock).events != wanted:
            self.client.selector.modify(self.sock, wanted, self)

    def ready(self, events: int) -> None:
        if self.shaking or events & selectors.EVENT_WRITE:
            self.send()
        if self.shaking or not events & selectors.EVENT_READ:
            return
        # Until there is no more: what OpenSSL has decrypted already is no event for a selector.
        while not self.whole():
            try:
                self.receive()
            except NOT_NOW:
                return
        self.next()

    def receive(self) -> None:
        # One byte more than is missing: an echo that is too long must not pass for a good one.
        data = self.sock.recv(self.expected - len(self.received) + 1)
        if not data:
            raise ConnectionError("the connection ended")
        self.received += data

    def whole(self) -> bool:
        """Whether the answer is complete; a wrong one raises."""
        if len(self.received) < self.expected:
            return False
        if self.received != self.message:
            raise ConnectionError("the echo differs")
        return True

    def next(self) -> None:
        if self.client.complete(self, 1):
            self.begin()


class Datagram(Echo):
    type = socket.SOCK_DGRAM


class Connect(Echo):
    """A connection per message, which the server closes after its echo."""

    def open(self) -> None:
        self.ended = False
        super().open()

    def receive(self) -> None:
        data = self.sock.recv(self.expected - len(self.received) + 1)
        self.received += data
        self.ended = not data

    def whole(self) -> bool:
        if self.ended and self.received != self.message:
            raise ConnectionError("the echo differs")
        return self.ended

    def next(self) -> None:
        if self.client.complete(self, 1):
            self.close()
            self.open()


class Http(Echo):
    """GET / over a connection that is kept alive."""

    def prepare(self) -> None:
        self.message = REQUEST
        self.expected = 4096

    def whole(self) -> bool:
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank or len(body) < len(ANSWER):
            return False
        found = RESPONSE.fullmatch(head + blank)
        if not found or int(found[1]) != len(ANSWER) or body != ANSWER:
            raise ConnectionError("the response differs")
        return True


class Download(Connect):
    """Everything the server has, checked to the last byte; an operation is a MiB."""

    unit = 1024 * 1024

    def prepare(self) -> None:
        self.message = b"download\n"
        self.count = 0

    def receive(self) -> None:
        data = self.sock.recv(RECORD)
        place = self.count % len(CHUNK)
        if data != TWO_CHUNKS[place : place + len(data)]:
            raise ConnectionError("the download differs")
        self.count += len(data)
        self.client.operations += len(data)
        self.ended = not data

    def whole(self) -> bool:
        if self.ended and self.count != DOWNLOAD:
            raise ConnectionError(f"the download has {self.count} bytes")
        return self.ended

    def next(self) -> None:
        if self.client.complete(self, 0):
            self.close()
            self.open()


MODES: dict[str, type[Echo]] = {
    "echo": Echo,
    "udp": Datagram,
    "connect": Connect,
    "http": Http,
    "download": Download,
}


class Client:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.body = bytes(ord("a") + i % 26 for i in range(options.size - STAMP - 1)) + b"\n"
        self.selector = selectors.DefaultSelector()
        self.operations = 0
        self.errors = 0
        self.stopping = False  # finish what is under way, begin nothing
        self.latencies: list[float] = []
        self.context = None
        if options.tls:
            self.context = ssl.create_default_context(cafile=options.tls)

    def connect(self, type: int) -> socket.socket:
        if self.options.path:
            sock = socket.socket(socket.AF_UNIX, type)
            sock.connect(self.options.path)
        else:
            sock = socket.socket(socket.AF_INET, type)
            sock.connect((self.options.host, self.options.port))
            if type == socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        if self.context is None:
            return sock
        return self.context.wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False
        )

    def complete(self, connection: Echo, operations: int) -> bool:
        """An operation is over. False: it was this connection's last one."""
        if self.stopping:
            self.selector.unregister(connection.sock)
            return False
        self.operations += operations
        if self.options.latency:
            self.latencies.append(time.perf_counter() - connection.sent_at)
        return True

    def serve_until(self, end: float) -> None:
        while time.perf_counter() < end and self.selector.get_map():
            for key, events in self.selector.select(0.05):
                try:
                    key.data.ready(events)
                except OSError as error:
                    print(f"client: {error}", file=sys.stderr)
                    self.errors += 1
                    key.data.close()

    def run(self) -> dict[str, float]:
        for number in range(self.options.connections):
            MODES[self.options.mode](self, number)
        self.serve_until(time.perf_counter() + self.options.warmup)
        self.operations = 0
        self.latencies.clear()
        before = usage(self.options.pid) if self.options.pid else None
        begin = time.perf_counter()
        self.serve_until(begin + self.options.seconds)
        seconds = time.perf_counter() - begin
        after = usage(self.options.pid) if self.options.pid else None
        unit = MODES[self.options.mode].unit
        result = {"messages": self.operations // unit, "seconds": seconds, "errors": self.errors}
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
    parser.add_argument("--mode", choices=MODES, default="echo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--path")
    parser.add_argument("--tls", metavar="CA", help="a file of certificates to trust")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--latency", action="store_true")
    print(json.dumps(Client(parser.parse_args()).run()))


if __name__ == "__main__":
    main()
