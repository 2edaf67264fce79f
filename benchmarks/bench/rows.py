"""The rows of the benchmark: what is measured, apart from which loop is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.loops import LIBUV, Column
from bench.machine import Cores
from bench.sample import Sample
from bench.tcp import tcp_echo


@dataclass(frozen=True)
class Settings:
    """What a measurement needs besides its row and its column."""

    seconds: float
    warmup: float
    connections: int | None  # in place of the row's own
    cores: Cores | None
    client: list[str]
    libuv_echo: Path | None


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    unit: str  # one operation
    measure: Callable[[Row, Column, Settings], Sample]
    kind: str  # of servers.py
    size: int = 1024
    connections: int = 50
    latency: bool = False  # also p50 and p99; costs the client a clock read per message
    has_floor: bool = True  # the C libuv server does the same work, so its column belongs here

    def applies_to(self, column: Column) -> bool:
        return self.has_floor or column.loop != LIBUV


ROWS = [
    Row("echo-1k", "TCP echo, Protocol, 1 KiB", "msg", tcp_echo, "protocol"),
    Row("echo-10k", "TCP echo, Protocol, 10 KiB", "msg", tcp_echo, "protocol", size=10 * 1024),
    Row("echo-100k", "TCP echo, Protocol, 100 KiB", "msg", tcp_echo, "protocol", size=100 * 1024),
    Row("buffered-1k", "TCP echo, BufferedProtocol, 1 KiB", "msg", tcp_echo, "buffered"),
    Row("streams-1k", "TCP echo, streams read(), 1 KiB", "msg", tcp_echo, "streams"),
    Row("readline-1k", "TCP echo, streams readline(), 1 KiB", "msg", tcp_echo, "streams-readline"),
]
BY_NAME = {row.name: row for row in ROWS}
