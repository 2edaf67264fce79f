"""The table of loops, and what a column of the result is.

No loop is a special case: a name leads to a factory and to the module that programs use as asyncio,
and every program is the same. So this file is imported by the harness and, under every interpreter
measured, by the programs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
LIBUV = "libuv"  # the C reference server: a column without a Python loop


@dataclass(frozen=True)
class Loop:
    factory: str  # "module:function", called without arguments
    package: str | None  # whose version is reported; None: the interpreter's own
    module: str = "asyncio"  # what the programs import as asyncio
    environment: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)  # rows that it cannot do, and why


# Another variant of a loop is one more line, such as the same factory with another environment.
# LOOP+MODULE runs another module on a loop than its users would have: it tells which of the two a
# difference comes from.
LOOPS = {
    "veloop": Loop("veloop:new_event_loop", "veloop", module="veloop"),
    "veloop-pure": Loop("veloop:new_event_loop", "veloop", "veloop", {"VELOOP_PURE": "1"}),
    "veloop+asyncio": Loop("veloop:new_event_loop", "veloop"),
    "uvloop": Loop("uvloop:new_event_loop", "uvloop"),
    "uvloop+veloop": Loop("uvloop:new_event_loop", "uvloop", module="veloop"),
    "asyncio": Loop("asyncio:new_event_loop", None),
    "asyncio+veloop": Loop("asyncio:new_event_loop", None, module="veloop"),
    "rloop": Loop(
        "rloop:new_event_loop",
        "rloop",
        lacks={"connect": "a connection stays open when close() follows write()"},
    ),
    "zuvloop": Loop("zuvloop:new_event_loop", "zuvloop"),  # for CPython 3.14 and newer
}
REFERENCES = ("uvloop", "asyncio")  # what ratios are given to
DEFAULT = ("veloop", "veloop-pure", "uvloop", "asyncio", "rloop", "zuvloop", LIBUV)


@dataclass(frozen=True)
class Column:
    """A loop under an interpreter, written NAME or NAME@PYTHON."""

    label: str
    loop: str
    python: str

    @classmethod
    def parse(cls, text: str) -> Column:
        loop, _, python = text.partition("@")
        if loop != LIBUV and loop not in LOOPS:
            raise ValueError(f"no loop named {loop!r}; there are: {', '.join([*LOOPS, LIBUV])}")
        return cls(
            f"{loop}@{Path(python).name}" if python else loop, loop, python or sys.executable
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, **LOOPS[self.loop].environment}

    def lacks(self, row: str) -> str | None:
        """Why this column has no figure in that row; None: it should have one."""
        return LOOPS[self.loop].lacks.get(row) if self.loop != LIBUV else None

    def probe(self) -> tuple[str, bool]:
        """(description, True) if a loop can be made, else (reason, False).

        In a process of its own: the interpreter may be another one, and a loop that cannot be
        imported, or takes the process down, is an absent column and not the end of the run.
        """
        command = [self.python, str(HERE / "servers.py"), self.loop, "--probe"]
        try:
            done = subprocess.run(
                command, env=self.environment(), capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error), False
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            return lines[-1] if lines else f"exit status {done.returncode}", False
        return json.loads(done.stdout)["description"], True


def module(name: str) -> Any:
    """What a program on this loop uses as asyncio."""
    return importlib.import_module(LOOPS[name].module)


def factory(name: str) -> Callable[[], Any]:
    home, _, function = LOOPS[name].factory.partition(":")
    found: Callable[[], Any] = getattr(importlib.import_module(home), function)
    return found


def describe(name: str) -> str:
    """Versions, as seen from inside the interpreter that runs the loop."""
    implementation = sys.implementation.name.replace("cpython", "CPython").replace("pypy", "PyPy")
    python = f"{implementation} {sys.version.split()[0]}"
    if implementation == "PyPy":
        version = getattr(sys, "pypy_version_info")  # noqa: B009 (typeshed has no such name)
        python = f"PyPy {version[0]}.{version[1]}.{version[2]} (Python {sys.version.split()[0]})"
        # How soon memory is used again depends on it, and with it what the caches are good for.
        python += f", nursery {getattr(gc.get_stats(), 'nursery_size')}"  # noqa: B009 (as above)
    # Takes longer to import than all the rest of a program, and only a probe needs it.
    from importlib import metadata

    loop = LOOPS[name]
    words = [python]
    if loop.package is not None:
        try:
            found = metadata.version(loop.package)
        except metadata.PackageNotFoundError:
            found = "(not installed as a package)"
        words.insert(0, f"{loop.package} {found}")
    if loop.module != "asyncio" or "+" in name:
        words.append(f"with {loop.module}'s modules")
    return ", ".join(words)
