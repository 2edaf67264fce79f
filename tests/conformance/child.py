"""The child process: runs the tests of one file and writes one JSON line per step.

    child.py --probe LOOP     says what this interpreter has (one JSON object on stdout)
    child.py JOB              runs a job, a JSON file that harness.py wrote

A watchdog (faulthandler) is armed around each test. A test that hangs or crashes takes this process
down with it; the parent sees which test started last and goes on with the others in a new child.
"""

import faulthandler
import importlib
import importlib.util
import json
import os
import platform
import re
import signal
import sys
import time
import traceback
import unittest

import inject
import modules

SEVERITY = "passed", "skipped", "failed", "error"


class Recorder(unittest.TestResult):
    """Writes the events of a run to a file, flushed at once: the next test may kill us."""

    def __init__(self, job, ran):
        super().__init__()
        self.out = open(job["events"], "a")
        self.pid = os.getpid()
        self.timeout = job["timeout"]
        self.not_yet, self.not_yet_timeout = any_of(job["not_yet"]), job["not_yet_timeout"]
        self.fixture = None  # [status, error] of a failed setUpClass or setUpModule
        self.ran = ran  # modules.Ran, where modules are replaced
        self.begin()

    def begin(self, name=""):
        """Reset what is known about the current test and arm the watchdog."""
        self.status, self.error = "passed", ""
        self.began = time.monotonic()
        self.counters = list(inject.counters)
        if self.ran:
            self.ran.restart()
        timeout = self.not_yet_timeout if self.not_yet.fullmatch(name) else self.timeout
        faulthandler.dump_traceback_later(timeout, exit=True)

    def emit(self, **event):
        """Write one event; a process that a test forked must not."""
        if os.getpid() == self.pid:
            self.out.write(json.dumps(event) + "\n")
            self.out.flush()

    def startTest(self, test):
        super().startTest(test)
        self.emit(start=short(test.id()))
        self.begin(short(test.id()))

    def stopTest(self, test):
        super().stopTest(test)
        loops, stock = (now - was for now, was in zip(inject.counters, self.counters, strict=True))
        self.emit(
            id=short(test.id()),
            status=self.status,
            error=self.error,
            loops=loops,
            stock=stock,
            used=self.ran.seen if self.ran else False,
            secs=round(time.monotonic() - self.began, 3),
        )
        self.begin()  # the watchdog is for fixtures as well

    def note(self, test, status, err):
        """Keep the worst that was said about the test."""
        if isinstance(err, tuple):
            traceback.print_exception(*err)
            err = first_line(err)
        if isinstance(test, unittest.suite._ErrorHolder):
            self.fixture = status, f"{test.id()}: {err}"
        elif SEVERITY.index(status) > SEVERITY.index(self.status):
            self.status, self.error = status, err

    def addFailure(self, test, err):
        self.note(test, "failed", err)

    def addError(self, test, err):
        self.note(test, "error", err)

    def addSkip(self, test, reason):
        self.note(test, "skipped", reason)

    def addSubTest(self, test, subtest, err):
        if err:
            self.note(test, "failed" if issubclass(err[0], AssertionError) else "error", err)

    def addUnexpectedSuccess(self, test):
        self.note(test, "failed", "unexpected success")


def short(name):
    """Return a test's id without the common prefix."""
    return name.removeprefix(inject.PREFIX)


def any_of(patterns):
    """Return one regular expression for all; for none, one that never matches."""
    return re.compile("|".join(patterns) or r"(?!)")


def first_line(err):
    """Return the first line of the exception's text, as a traceback would end with it."""
    text = traceback.format_exception_only(*err[:2])[-1].strip()
    return text.partition("\n")[0][:300]


def flatten(suite):
    """Yield the test cases in a nest of suites."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def default_signals():
    """Undo what '&' and nohup do: some tests send themselves signals that would be ignored."""
    for name in "SIGHUP", "SIGQUIT", "SIGTERM":
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(job):
    """Run what the job asks for; does not return."""
    if platform.python_implementation() == "PyPy":
        # it would compile itself from C sources, which not every distribution has
        sys.modules["_testcapi"] = None
    default_signals()
    faulthandler.enable()
    inject.install(job["loop"], job["file"])
    recorder = Recorder(job, modules.install(job["modules"]) if job["modules"] else None)
    left_out = any_of(job["left_out"])
    part, parts = job["part"]
    suite = unittest.defaultTestLoader.loadTestsFromName(inject.PREFIX + job["file"])
    tests = list(flatten(suite))[part::parts]
    # what is not there yet comes last: such a test may leave garbage that disturbs others
    tests.sort(key=lambda test: bool(recorder.not_yet.fullmatch(short(test.id()))))
    names = [short(test.id()) for test in tests]
    recorder.emit(
        plan=[name for name in names if not left_out.fullmatch(name)],
        left_out=[name for name in names if left_out.fullmatch(name)],
    )
    only, done = set(job["only"]), set(job["done"])
    unittest.TestSuite(
        test
        for test, name in zip(tests, names, strict=True)
        if not left_out.fullmatch(name) and name not in done and (not only or name in only)
    ).run(recorder)
    recorder.emit(end=True, fixture=recorder.fixture)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that a test left behind must not keep the process


def probe(spec):
    """Say what runs here, and where its tests are."""
    package = importlib.import_module(spec.partition(":")[0])
    tests = importlib.util.find_spec("test") and importlib.util.find_spec("test.test_asyncio")
    folder = tests and list(tests.submodule_search_locations)[0]
    files = {
        entry.name.removesuffix(".py"): entry.stat().st_size
        for entry in (os.scandir(folder) if folder else ())
        if re.fullmatch(r"test_\w+\.py", entry.name)
    }
    print(
        json.dumps(
            {
                "implementation": platform.python_implementation(),
                "version": sys.version_info[:3],
                "version_text": platform.python_version() + getattr(sys, "abiflags", ""),
                "package": package.__name__,
                "package_version": getattr(package, "__version__", ""),
                "files": files,
            }
        )
    )


def main():
    """Do what the command line says."""
    if sys.argv[1] == "--probe":
        return probe(sys.argv[2])
    with open(sys.argv[1]) as f:
        job = json.load(f)
    run(job)


if __name__ == "__main__":
    main()
