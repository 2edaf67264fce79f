"""What a row of the benchmark is, and what a measurement needs besides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.loops import LIBUV, Column
from bench.machine import Cores
from bench.sample import Sample


@dataclass(frozen=True)
class Settings:
    cores: Cores | None
    client: list[str]  # the command of the one that is there
    tls_client: list[str]
    libuv_echo: Path | None


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    unit: str  # one operation
    measure: Callable[[Row, Column, Settings], Sample]
    kind: str  # the program: of servers.py, or of micro.py
    target: float | None = None  # veloop's figure relative to uvloop's is to be at most that
    floor_target: float | None = None  # the same relative to the C libuv server
    figure: str = "CPU us"  # what is compared
    mode: str = "echo"  # of the client
    tls: bool = False
    size: int = 0  # of a message
    connections: int = 0
    seconds: float = 0.2  # measured time of one sample
    warmup: float = 0.05  # unmeasured time before it
    rounds: int | None = None  # at most so many, as more would only take time
    has_floor: bool = False  # the C libuv server does the same work, so its column belongs here

    def applies_to(self, column: Column) -> bool:
        return self.has_floor or column.loop != LIBUV

    def adjusted(self, seconds: float | None, warmup: float | None, connections: int | None) -> Row:
        """This row with what the command line says in place of its own numbers."""
        return dataclasses.replace(
            self,
            seconds=self.seconds if seconds is None else seconds,
            warmup=self.warmup if warmup is None else warmup,
            connections=connections if connections and self.connections else self.connections,
        )
