"""The rows of the benchmark: what is measured, apart from which loop is measured."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.latency import latency_p99
from bench.load import load
from bench.memory import connection_memory
from bench.micro import micro
from bench.row import Row
from bench.startup import startup

KIB = 1024

# Rows with a server and a client. Without `partial` a hundred lines would say the same four things.
served = partial(Row, unit="msg", measure=load, size=KIB, connections=50, seconds=0.6, warmup=0.2)
echo = partial(served, kind="protocol", has_floor=True)
secure = partial(served, tls=True)


def small(name: str, title: str, unit: str = "op", kind: str = "", **rest: Any) -> Row:
    """A row without a server; its kind is its name if not said otherwise."""
    return Row(name, title, unit, micro, kind or name, **rest)


late = partial(small, unit="timer", figure="us", seconds=0.5, target=1.0)

ECHO = [
    echo("echo-1k", "TCP echo, Protocol, 1 KiB", target=0.92, floor_target=1.10),
    echo("echo-10k", "TCP echo, Protocol, 10 KiB", size=10 * KIB, target=0.95, floor_target=1.10),
    echo(
        "echo-100k", "TCP echo, Protocol, 100 KiB", size=100 * KIB, target=0.97, floor_target=1.10
    ),
    echo("buffered-1k", "TCP echo, BufferedProtocol, 1 KiB", kind="buffered", target=0.90),
    echo("streams-1k", "TCP echo, streams read(), 1 KiB", kind="streams", target=0.70),
    echo(
        "readexactly-1k",
        "TCP echo, streams readexactly(), 1 KiB",
        kind="streams-readexactly",
        target=0.70,
    ),
    echo(
        "readline-1k", "TCP echo, streams readline(), 1 KiB", kind="streams-readline", target=0.70
    ),
]
SERVERS = [
    served(
        "sockets-1k", "TCP echo, sock_recv(), sock_sendall(), 1 KiB", kind="sockets", target=0.7
    ),
    served("unix-1k", "Unix socket echo, Protocol, 1 KiB", kind="unix", target=0.97),
    served("udp-512", "UDP echo, 512 B", kind="datagrams", mode="udp", size=512, target=0.80),
    served("connect", "connect, one request, close", kind="once", mode="connect", target=0.90),
    served("uvicorn", "HTTP, uvicorn + httptools", kind="uvicorn", mode="http", target=0.97),
    served("aiohttp", "HTTP, aiohttp", kind="aiohttp", mode="http", target=0.97),
    secure("tls-1k", "TLS echo, Protocol, 1 KiB", kind="tls", target=0.90),
    secure("tls-streams-1k", "TLS echo, streams, 1 KiB", kind="tls-streams", target=0.80),
    secure(
        "tls-download",
        "TLS download, 100 MiB",
        unit="MiB",
        kind="tls-download",
        mode="download",
        connections=1,
        target=1.0,
    ),
    secure(
        "tls-handshake",
        "TLS handshake, one request, close",
        kind="tls-once",
        mode="connect",
        size=32,
        connections=10,
        target=1.0,
    ),
]
MODULES = [
    small("sleep-0", "await sleep(0)", kind="sleep", target=0.90),
    small("create-task", "await create_task(...)", target=0.90),
    small("gather", "gather() of 10 coroutines", target=0.90),
    small("taskgroup", "TaskGroup of 10 tasks", kind="task-group", target=1.0),
    small("timeout", "async with timeout(60)", target=0.80),
    small("wait-for", "wait_for(sleep(0), 60)", target=0.80),
    small("queue", "Queue(), put() and get(), bursts of 100", kind="queue-unbounded", target=0.80),
    small("queue-1", "Queue(1), put() and get()", target=0.80),
    small("lock", "async with Lock(), free", target=0.80),
    small("lock-contended", "Lock handed over, 10 tasks", target=0.80),
    small("semaphore", "async with Semaphore(2), free", target=0.80),
    small("semaphore-contended", "Semaphore(2) handed over, 10 tasks", target=0.80),
    small("event", "Event, set() and wait(), two tasks", target=0.80),
    small("condition", "Condition, notify() and wait(), two tasks", target=1.0),
]
LOOP = [
    small("call-soon-chain", "call_soon(), one after the other", target=0.50),
    small("call-soon-bulk", "call_soon(), 1,000 at a time", target=0.50),
    small("threadsafe", "call_soon_threadsafe(), from a thread", target=0.50),
    small("threadsafe-own", "call_soon_threadsafe(), from the loop's thread", target=0.50),
    small("timer-cancel", "call_later(), cancel()", target=0.40),
    small("timer-fire", "call_later(), fired", target=0.40),
    small("getaddrinfo-numeric", "getaddrinfo(), 127.0.0.1", target=1.0),
    small("getaddrinfo-localhost", "getaddrinfo(), localhost", target=1.0),
    small("loop", "a loop created and closed", target=1.0),
    Row("startup", "import, first loop, end of the process", "process", startup, "", target=1.0),
]
OTHER = [
    Row(
        "memory-connection",
        "memory per idle connection",
        "connection",
        connection_memory,
        "protocol",
        figure="KiB",
        size=64,
        connections=10_000,
        seconds=20,
        rounds=2,
        target=0.80,
    ),
    small(
        "memory-timer",
        "memory per pending timer",
        "timer",
        kind="timer-memory",
        figure="bytes",
        rounds=2,
        target=0.80,
    ),
    Row(
        "latency-busy",
        "1 KiB echo every ms, ready queue never empty, p99",
        "msg",
        latency_p99,
        "busy",
        figure="us",
        size=KIB,
        seconds=0.8,
        warmup=0.2,
        target=1.0,
    ),
    late("lateness-p50", "timers off their time, p50"),
    late("lateness-p99", "timers off their time, p99"),
]
PROCESSES = [
    small("spawn", "create_subprocess_exec(), wait()", target=1.0),
    small("communicate", "communicate(), 10 MB through cat", target=1.0, seconds=0.5),
]
ROWS = [*ECHO, *SERVERS, *MODULES, *LOOP, *PROCESSES, *OTHER]
BY_NAME = {row.name: row for row in ROWS}
