"""The Pythons of this machine that veloop is for, and environments made of them."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "VELOOP_PYTHONS"
OLDEST = (3, 11)
NAMES = [f"python3.{minor}{t}" for minor in range(11, 20) for t in ("", "t")] + ["pypy3"]

PROBE = """
import json, sys, sysconfig
pypy = getattr(sys, "pypy_version_info", None)
print(json.dumps({
    "executable": sys.executable,
    "implementation": sys.implementation.name,
    "version": sys.version_info[:3],
    "release": sys.version_info[3] == "final",
    "own_version": pypy and pypy[:3],
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter."""

    executable: str
    implementation: str
    version: tuple[int, ...]
    release: bool
    own_version: tuple[int, ...] | None
    free_threaded: bool

    @property
    def name(self) -> str:
        if self.own_version:
            return "pypy-" + ".".join(map(str, self.own_version))
        return "cpython-" + ".".join(map(str, self.version)) + "t" * self.free_threaded

    @property
    def tag(self) -> str:
        """The beginning of the tag of wheels for it alone, as cp311-cp311."""
        if self.implementation != "cpython":
            return "pp{}{}-pypy".format(*self.version)
        digits = "{}{}".format(*self.version)
        return f"cp{digits}-cp{digits}{'t' * self.free_threaded}"

    @property
    def is_stable_abi(self) -> bool:
        return self.implementation == "cpython" and not self.free_threaded


def probe(executable: str) -> Python | None:
    """What that is; None for what is no Python or too old a one."""
    try:
        done = subprocess.run(
            [executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
        )
        facts = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    for key in ("version", "own_version"):
        facts[key] = facts[key] and tuple(facts[key])
    facts["executable"] = os.path.abspath(shutil.which(executable) or executable)
    python = Python(**facts)
    return python if python.version >= OLDEST else None


def candidates() -> Iterable[str]:
    """Where Pythons may be: this one, those on PATH, pyenv's."""
    yield sys.executable
    yield from filter(None, map(shutil.which, NAMES))
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    yield from sorted(glob.glob(f"{glob.escape(root)}/versions/*/bin/python"))


def find(given: Iterable[str] = (), only_given: bool = False) -> list[Python]:
    """The given ones, those in the variable, and all that are found; one of each kind."""
    named = [*given, *filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))]
    found: dict[str, Python] = {}
    for executable in named:
        python = probe(executable)
        if python is None:
            sys.exit(f"{executable}: no Python {OLDEST[0]}.{OLDEST[1]} or newer")
        found.setdefault(python.name, python)
    if not only_given:
        kinds = {(p.implementation, p.version[:2], p.free_threaded) for p in found.values()}
        for executable in candidates():
            python = probe(executable)
            if python is None:
                continue
            kind = (python.implementation, python.version[:2], python.free_threaded)
            if kind not in kinds:
                kinds.add(kind)
                found[python.name] = python
    return sorted(found.values(), key=lambda p: (p.implementation, p.version, p.name))


def environment(python: Python, folder: Path) -> Path:
    """A fresh virtual environment; the interpreter in it. Works where ensurepip is missing."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python.executable, "-m", "venv", "--without-pip", folder], check=True)
    inside = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "pip"]
    subprocess.run(command, check=True, env=clean())
    return inside


def clean() -> dict[str, str]:
    """This environment without what steers Python, and without the folder we are in."""
    return {k: v for k, v in os.environ.items() if not re.fullmatch(r"PYTHON(PATH|HOME)", k)}
