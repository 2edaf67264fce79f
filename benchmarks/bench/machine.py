"""What machine this is, and which cores the server and the client get."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    server: int
    client: int


def available() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return []


def siblings(core: int) -> set[int]:
    """The logical CPUs that share this one's physical core, itself among them."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    found = {core}
    try:
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        pass
    return found


def choose() -> Cores | None:
    """Two different physical cores where there are two; the server gets the one of the highest
    number, since the first core is where most interrupts go. None: no pinning here."""
    cores = available()
    if len(cores) < 2:
        return None
    server = cores[-1]
    others = [core for core in cores if core not in siblings(server)] or cores[:-1]
    return Cores(server, others[0])


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started in here are bound to that core, from their first instruction."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def describe(cores: Cores | None) -> dict[str, str]:
    pinning = "not pinned"
    if cores is not None:
        pinning = f"server on {cores.server}, client on {cores.client}"
    return {
        "CPU": cpu_model(),
        "cores": f"{os.cpu_count()} ({pinning})",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
