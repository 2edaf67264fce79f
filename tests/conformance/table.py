"""The table of tests that are not expected to pass: not_applicable.toml and not_yet.toml, and
not_applicable_modules.toml where the modules are what is tested.

An entry names tests and says why. Both files have the same form:

    [[entry]]
    reason = "white box: mocks subprocess.Popen"
    in = "test_subprocess.*"                          # FILE.CLASS, or a list of them
    tests = ["test_popen_error", "test_terminate_*"]  # left out: every test in there
    python = ">=3.12, <3.14"                          # left out: every version
    implementation = "PyPy"                           # left out: every one
    issue = "Surface"                                 # not_yet.toml only

A `*` stands for anything.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).parent
CANDIDATE = "veloop"  # not_yet.toml is about this package; other loops are measured without it
NOT_APPLICABLE, NOT_YET = "n/a", "not yet"
# What tests the modules around the loop; the other files are about loops and transports.
MODULES_FILES = {
    f"test_{area}"
    for area in """
        context eager_task_factory events futures futures2 free_threading graph locks pep492
        queues runners streams subprocess taskgroups tasks threads timeouts waitfor
    """.split()
}
REQUIRED = {NOT_APPLICABLE: {"reason", "in"}, NOT_YET: {"reason", "in", "issue"}}
OPTIONAL = {"tests", "python", "implementation"}
COMPARE = {
    ">=": lambda version, bound: version >= bound,
    "<": lambda version, bound: version < bound,
    "==": lambda version, bound: version[: len(bound)] == bound,
}


@dataclass(frozen=True)
class Entry:
    """One pattern of the table."""

    verdict: str  # NOT_APPLICABLE or NOT_YET
    pattern: str  # 'FILE.CLASS.TEST'
    reason: str
    issue: str = ""
    python: str = ""
    implementation: str = ""

    @cached_property
    def regex(self):
        return re.compile(translate(self.pattern))

    @property
    def file(self):
        """The pattern's first part."""
        return self.pattern.partition(".")[0]

    @property
    def bounded(self):
        """Is the entry for some interpreters only?"""
        return bool(self.python or self.implementation)

    def matches(self, name):
        return bool(self.regex.fullmatch(name))

    def applies(self, interpreter):
        """Is the entry for this interpreter?"""
        return self.implementation in ("", interpreter.implementation) and all(
            satisfies(interpreter.version, bound) for bound in filter(None, self.python.split(","))
        )


def satisfies(version, bound):
    """Is the version, a tuple, within a bound such as '>=3.12'?"""
    found = re.fullmatch(r"\s*(>=|<|==)\s*(\d+(?:\.\d+)*)\s*", bound)
    if not found:
        raise ValueError(f"not a bound on the Python version: {bound!r}")
    operator, number = found.groups()
    return COMPARE[operator](version, tuple(map(int, number.split("."))))


def translate(pattern):
    """Return the regular expression for a pattern; fnmatch's differ between Python versions."""
    return ".*".join(map(re.escape, pattern.split("*")))


def as_list(value):
    return [value] if isinstance(value, str) else value


def read(path, verdict):
    """Yield the entries of one file, one for each pattern."""
    for number, raw in enumerate(tomllib.loads(path.read_text("utf-8")).get("entry", []), 1):
        keys, required = set(raw), REQUIRED[verdict]
        if not required <= keys <= required | OPTIONAL:
            raise ValueError(
                f"{path.name}, entry {number}: needs {sorted(required)}, may have "
                f"{sorted(OPTIONAL)}, has {sorted(keys)}"
            )
        details = {key: raw[key] for key in keys - {"in", "tests"}}
        for where in as_list(raw["in"]):
            for test in as_list(raw.get("tests", "*")):
                yield Entry(verdict, f"{where}.{test}", **details)


class Table:
    """The entries that apply to one interpreter and loop."""

    def __init__(self, interpreter, modules="", folder=HERE):
        entries = list(read(folder / "not_applicable.toml", NOT_APPLICABLE))
        if modules:
            # A file that says nothing about a loop may say much about the modules.
            entries = [
                entry
                for entry in entries
                if not entry.pattern.endswith(".*") or "." in entry.pattern[:-2]
            ]
            entries += read(folder / "not_applicable_modules.toml", NOT_APPLICABLE)
        if interpreter.package == CANDIDATE and not modules:
            entries += read(folder / "not_yet.toml", NOT_YET)
        self.entries = [entry for entry in entries if entry.applies(interpreter)]
        files = [file for file in interpreter.files if not modules or file in MODULES_FILES]
        self.files = sorted(file for file in files if not self.leaves_out(file))

    def of(self, verdict):
        """Return the entries of one kind."""
        return [entry for entry in self.entries if entry.verdict == verdict]

    def regexes(self, verdict):
        """Return what the child needs to know of the entries of one kind."""
        return [entry.regex.pattern for entry in self.of(verdict)]

    def leaves_out(self, file):
        """Is the whole file left out?  Then it isn't even loaded."""
        return any(entry.matches(file + ".*") for entry in self.of(NOT_APPLICABLE))

    def find(self, name, verdict):
        """Return the entry for a test, or None."""
        return next((entry for entry in self.of(verdict) if entry.matches(name)), None)

    def about(self, files):
        """Return the entries about these files."""
        return [
            entry
            for entry in self.entries
            if any(re.fullmatch(translate(entry.file), file) for file in files)
        ]
