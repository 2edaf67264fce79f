"""Build, test and measure veloop on every Python of this machine, and print a table.

Each interpreter gets a fresh virtual environment in build/matrix. What is said on the way, and the
whole output of a step, is in the log beside it.
"""

import argparse
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import interpreters
from interpreters import Python

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "matrix"


@dataclass
class Row:
    """What became of one interpreter."""

    python: Python
    cells: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        return any(cell.startswith("FAILED") for cell in self.cells.values())


def step(log: Path, *command: object, timeout: float | None = None) -> tuple[bool, str]:
    """Run it in the checkout; whether it succeeded, and its output, which the log gets too."""
    words = list(map(str, command))
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=interpreters.clean(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        good, output = done.returncode == 0, done.stdout
        if done.returncode < 0:
            output += f"\nkilled by {signal.Signals(-done.returncode).name}\n"
    except subprocess.TimeoutExpired as exc:
        output = exc.stdout or ""
        output = output.decode(errors="replace") if isinstance(output, bytes) else output
        good, output = False, output + f"\ntook longer than {timeout:.0f} s\n"
    with log.open("a") as file:
        file.write(f"$ {' '.join(words)}\n{output}\n")
    return good, output


def requirements() -> tuple[list[str], list[str]]:
    """What the tests need, and what some of them use where it can be had."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    everything = project["optional-dependencies"]["test"]
    needed = [each for each in everything if re.match(r"pytest|hypothesis", each)]
    return needed, [each for each in everything if each not in needed]


def install(row: Row, log: Path) -> Path | None:
    """veloop and the tests' packages in a fresh environment; the interpreter in that."""
    inside = interpreters.environment(row.python, BUILD / row.python.name)
    pip = [inside, "-m", "pip", "install", "--quiet"]
    needed, wanted = requirements()
    for packages in (["."], needed):
        if not step(log, *pip, *packages)[0]:
            row.cells["build"] = f"FAILED: pip install {' '.join(packages)}"
            return None
    row.cells["build"] = "yes"
    # A Python that is new has no wheels yet of what is written in C: one by one, then.
    if not step(log, *pip, "--only-binary", ":all:", *wanted)[0]:
        for package in wanted:
            if not step(log, *pip, "--only-binary", ":all:", package)[0]:
                name = re.match(r"[\w-]+", package)
                row.notes.append(f"no wheel of {name[0] if name else package}")
    return inside


def accelerator(row: Row, inside: Path, log: Path) -> None:
    """Whether it is in use, and must be."""
    code = "import veloop; print(veloop.accelerated)"
    good, output = step(log, inside, "-P", "-c", code)
    expected = row.python.is_stable_abi
    if not good:
        row.cells["accelerator"] = "FAILED: import"
    elif output.split()[-1:] == [str(expected)]:
        row.cells["accelerator"] = "yes" if expected else "none there"
    else:
        row.cells["accelerator"] = "FAILED: not built" if expected else "FAILED: built"


def tests(row: Row, inside: Path, log: Path, arguments: list[str], timeout: float) -> None:
    command = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    good, output = step(log, *command, timeout=timeout)
    row.cells["tests"] = verdict(good, pytest_summary(output))


def conformance(
    row: Row, inside: Path, log: Path, arguments: list[str], timeout: float, modules: bool
) -> None:
    column = "modules" if modules else "conformance"
    command = [inside, "tests/conformance/run.py", *arguments]
    command += ["--modules", "veloop"] * modules
    good, output = step(log, *command, timeout=timeout)
    row.cells[column] = verdict(good, conformance_score(output))


def verdict(good: bool, text: str) -> str:
    return text if good else f"FAILED: {text}"


def pytest_summary(output: str) -> str:
    """As '812 passed, 3 skipped'."""
    lines = re.findall(r"^=*\s*(\d+ (?:passed|failed|error|skipped).*?) in [\d.]+s", output, re.M)
    return lines[-1] if lines else last_line(output)


def conformance_score(output: str) -> str:
    """As '770 / 770'."""
    scores = re.findall(r"^(\d+ / \d+) applicable tests passed", output, re.M)
    return scores[-1] if scores else last_line(output)


def last_line(output: str) -> str:
    lines = output.split("\n")
    return next((line.strip()[:60] for line in reversed(lines) if line.strip()), "no output")


def table(rows: list[Row], columns: list[str]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [["interpreter", *columns]]
    lines += [[row.python.name, *(row.cells.get(c, "-") for c in columns)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ci/matrix",
        description=__doc__.partition("\n")[0],
        epilog=f"Interpreters are also taken from {interpreters.VARIABLE}, paths with"
        " colons between them. Arguments behind -- go to pytest.",
    )
    add = parser.add_argument
    add("--python", action="append", default=[], help="an interpreter (repeatable)")
    add("--only", action="store_true", help="none but those that are given")
    add("--list", action="store_true", help="print which there are, and stop")
    add("--no-tests", action="store_true")
    add("--no-conformance", action="store_true")
    add("--modules", action="store_true", help="conformance of veloop's modules as well")
    add("--conformance-only", nargs="+", default=[], metavar="FILE", help="just test_events ...")
    add("--jobs", type=int, default=1, metavar="N", help="interpreters at a time")
    add("--timeout", type=float, default=3600, help="seconds per step; default: %(default)s")
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options, selection = parser.parse_args(arguments[:at]), arguments[at + 1 :]
    pythons = interpreters.find(options.python, only_given=options.only)
    if options.list or not pythons:
        print(*(f"{python.name:16} {python.executable}" for python in pythons), sep="\n")
        return not pythons

    columns = ["build", "accelerator"]
    columns += [] if options.no_tests else ["tests"]
    columns += [] if options.no_conformance else ["conformance"]
    columns += ["modules"] if options.modules else []
    only = ["--only", *options.conformance_only] if options.conformance_only else []
    building = threading.Lock()

    def fill(row: Row) -> None:
        began = time.monotonic()
        log = BUILD / f"{row.python.name}.log"
        log.write_text("")
        with building:  # in the checkout, which has one folder for that
            inside = install(row, log)
        if inside:
            accelerator(row, inside, log)
            if "tests" in columns:
                tests(row, inside, log, selection, options.timeout)
            for each in ("conformance", "modules"):
                if each in columns:
                    conformance(row, inside, log, only, options.timeout, each == "modules")
        cells = ", ".join(f"{key} {value}" for key, value in row.cells.items())
        print(f"{row.python.name}: {cells} ({time.monotonic() - began:.0f} s)", flush=True)

    BUILD.mkdir(parents=True, exist_ok=True)
    rows = [Row(python) for python in pythons]
    with ThreadPoolExecutor(options.jobs) as pool:
        # PyPy and free-threaded Pythons take the longest.
        list(pool.map(fill, sorted(rows, key=lambda row: row.python.is_stable_abi)))
    print()
    print(*table(rows, columns), sep="\n")
    for row in rows:
        for note in row.notes:
            print(f"{row.python.name}: {note}")
    return int(any(row.is_bad for row in rows))


if __name__ == "__main__":
    sys.exit(main())
