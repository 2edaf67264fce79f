"""python -m veloop --demo: TCP echo on veloop and on asyncio, side by side.

Three processes: a server on each loop, and the client, which talks to one server for half a
second, then to the other, and so on. On every connection it sends a message, waits for the whole of
its echo, compares it and sends the next. The servers run the same few lines of code.

Messages per second are those of client and server together, and a client in Python is often the
slower half. So each server is also asked for the CPU time it took, which is its own alone.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any

from .. import Runner, new_event_loop

LOOPS = {"veloop": new_event_loop, "asyncio": asyncio.new_event_loop}
CONNECTIONS = 20
SIZE = 1024
ROUNDS = 5
SECONDS = 0.5
WARM_UP = 0.1  # per round, not counted
PATIENCE = 30.0  # for the whole; a server that hangs is killed then


class DemoError(Exception):
    """What went wrong, for the user."""


# ---------------------------------------------------------------------------------- server


class Echo(asyncio.Protocol):
    """Sends everything back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def serve(name: str) -> int:
    """The server process: serve until stdin ends; return the exit status.

    It prints its port, and for every line on stdin the CPU time it has used (seconds).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, which ends stdin
    errors = []

    def answer() -> None:
        for _ in sys.stdin:
            print(time.process_time(), flush=True)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            errors.append(context)
            loop.default_exception_handler(context)

        loop.set_exception_handler(on_error)
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, answer)
        server.close()

    with Runner(loop_factory=LOOPS[name]) as runner:
        runner.run(main())
    return 1 if errors else 0


class Server:
    """A server process, as the client sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-m", __name__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is not None:
            self.process.kill()
        self.process.communicate()  # ends its stdin
        self.watchdog.cancel()
        if exc is None and self.process.returncode != 0:
            raise DemoError(f"the {self.name} server ended with status {self.process.returncode}")

    def read(self) -> float:
        """The next number that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise DemoError(f"the {self.name} server has ended")
        try:
            return float(line)
        except ValueError:
            raise DemoError(f"the {self.name} server has printed {line!r}") from None

    def port(self) -> int:
        """Its port; to be called once, first of all."""
        return int(self.read())

    def cpu_time(self) -> float:
        """The CPU time that it has used until now."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()


# ---------------------------------------------------------------------------------- client


class Client:
    """The connections of one round."""

    def __init__(self) -> None:
        self.messages = [os.urandom(SIZE) for _ in range(CONNECTIONS + 1)]
        self.selector = selectors.DefaultSelector()
        self.sockets: list[socket.socket] = []

    def connect(self, port: int) -> None:
        for _ in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", port))
            self.sockets.append(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, selectors.EVENT_READ)

    def run(self, seconds: float) -> tuple[int, float]:
        """Exchange messages for that long; return how many, and the time it took exactly."""
        select = self.selector.select
        messages = self.messages
        awaited: dict[Any, int] = {}  # the number of the message that is under way
        start = now = time.perf_counter()
        for number, sock in enumerate(self.sockets):
            awaited[sock] = number
            sock.sendall(messages[number])
        count = 0
        while awaited:
            more = now - start < seconds
            for key, _ in select():
                ready: Any = key.fileobj
                number = awaited.pop(ready)
                if receive(ready) != messages[number]:
                    raise DemoError("an echo differs from what was sent")
                count += 1
                if more:
                    awaited[ready] = number = (number + 1) % len(messages)
                    ready.sendall(messages[number])
            now = time.perf_counter()
        return count, now - start

    def finish(self) -> None:
        """See the server end the connections; whatever still comes is too much."""
        for sock in self.sockets:
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1):
                raise DemoError("more bytes came back than were sent")

    def close(self) -> None:
        self.selector.close()
        for sock in self.sockets:
            sock.close()


def receive(sock: socket.socket) -> bytes:
    """One whole message."""
    data = sock.recv(SIZE)
    while len(data) < SIZE:
        more = sock.recv(SIZE - len(data))
        if not more:
            raise DemoError(f"a connection ended {SIZE - len(data)} bytes early")
        data += more
    return data


def measure(server: Server, port: int) -> tuple[float, float]:
    """One round: messages per second, and the server's CPU time per message (microseconds)."""
    client = Client()
    try:
        client.connect(port)
        client.run(WARM_UP)
        before = server.cpu_time()
        count, seconds = client.run(SECONDS)
        used = server.cpu_time() - before
        client.finish()
    finally:
        client.close()
    return count / seconds, used / count * 1e6


# ------------------------------------------------------------------------------- the whole


def compare() -> None:
    """Measure and print the table."""
    print(
        f"TCP echo over 127.0.0.1: {CONNECTIONS} connections, {SIZE} bytes a message,"
        f" {ROUNDS} rounds of {SECONDS} s on each loop",
        flush=True,
    )
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    costs: dict[str, list[float]] = {name: [] for name in LOOPS}
    with Server("veloop") as veloop, Server("asyncio") as stock:
        servers = {server: server.port() for server in (veloop, stock)}
        for _ in range(ROUNDS):
            for server, port in servers.items():
                rate, cost = measure(server, port)
                rates[server.name].append(rate)
                costs[server.name].append(cost)
    print(f"\n{'loop':<10}{'messages/s':>12}{'server CPU per message':>26}")
    for name in LOOPS:
        cost = statistics.median(costs[name])
        cpu = f"{cost:.1f} us" if cost else "too short to tell"
        print(f"{name:<10}{statistics.median(rates[name]):>12,.0f}{cpu:>26}")


def main() -> int:
    """Run the demonstration; return the exit status."""
    try:
        compare()
    except (DemoError, OSError) as exc:
        print(f"python -m veloop --demo: error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
