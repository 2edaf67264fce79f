"""The parent's side: runs test files in child processes and gathers a result for every test.

One child per file. When a test hangs or crashes, its child dies; the test that started last gets
the blame and a fresh child goes on with the tests that are left. Tests that fail unexpectedly run
once more, each alone in a fresh process; those that pass then count as passed and are listed as
flaky.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from table import NOT_APPLICABLE, NOT_YET, Table

CHILD = Path(__file__).with_name("child.py")
FAILED = "failed", "error", "timeout"
STALE, NO_LOOP = "stale", "no loop"  # or none of the modules' code, where they are replaced
UNEXPECTED = (*FAILED, STALE)

# What is not there yet can make a test hang, and nobody has to wait for that; the slowest of them
# will take about two seconds once it passes.
NOT_YET_TIMEOUT = 4

# Files that sleep for long are dealt out to several children at a time.
PARTS = {"test_tasks": 4, "test_ssl": 2, "test_taskgroups": 2}


@dataclass
class Options:
    """How to run; the fields are run.py's options."""

    loop: str
    modules: str = ""  # the package whose modules take the place of asyncio's
    timeout: float = 20
    budget: float = 540
    jobs: int = 2 * (os.cpu_count() or 1)  # most tests sleep
    retry: bool = True
    logs: Path | None = None


@dataclass(frozen=True)
class Interpreter:
    """A Python with a loop to test, and the test files it carries with their sizes."""

    python: str
    implementation: str
    version: tuple
    version_text: str
    package: str
    package_version: str
    files: dict

    @classmethod
    def probe(cls, python, loop):
        """Ask the interpreter; OSError or CalledProcessError where it or the loop can't run."""
        out = subprocess.run(
            [python, CHILD, "--probe", loop],
            env=environment(),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        ).stdout
        told = json.loads(out)
        return cls(python=python, **dict(told, version=tuple(told["version"])))

    def __str__(self):
        return (
            f"{self.package} {self.package_version}".strip()
            + f", {self.implementation} {self.version_text}"
        )


@dataclass
class Result:
    """What became of one test."""

    id: str
    file: str
    status: str
    error: str = ""
    loops: int = 0  # loops of the candidate it made
    stock: int = 0  # loops of asyncio's own classes it made
    used: bool | None = False  # did it run code of the replaced modules? None: not known
    secs: float = 0.0
    ran: bool = True  # False where a broken fixture or the budget kept it from running

    @property
    def unexpected(self):
        return self.status in UNEXPECTED


@dataclass
class Outcome:
    """Everything a run found out."""

    interpreter: Interpreter
    table: Table
    files: list
    modules: str = ""
    results: dict = field(default_factory=dict)  # test id -> Result
    flaky: dict = field(default_factory=dict)  # test id -> error of the first attempt
    secs: float = 0.0

    @property
    def unexpected(self):
        return [result for _, result in sorted(self.results.items()) if result.unexpected]

    def of(self, file):
        """Return the part of the outcome that is about one file."""
        results = {name: result for name, result in self.results.items() if result.file == file}
        return Outcome(self.interpreter, self.table, [file], self.modules, results)

    @property
    def loops(self):
        return sum(result.loops for result in self.results.values())

    def proves(self, result):
        """Has the test used the candidate, as far as this Python can tell?"""
        if not self.modules:
            return bool(result.loops)
        return result.used is not False

    @property
    def loopless(self):
        """Files in which no test made the loop or ran the code: they prove nothing."""
        seen = {
            result.file
            for result in self.results.values()
            if result.loops or result.used is not False
        }
        return [file for file in self.files if file not in seen]

    @property
    def matched(self):
        """Entries of the table that match a test of this interpreter, and those that don't."""
        loaded = {result.file for name, result in self.results.items() if "." in name}
        alive, dead = [], []
        for entry in self.table.about(loaded):
            (alive if any(map(entry.matches, self.results)) else dead).append(entry)
        return alive, dead


def environment():
    """Return the environment of a child: no PYTHON* variable but an absolute PYTHONPATH."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = os.environ.get("PYTHONPATH", "")
    env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in path.split(os.pathsep) if p)
    return env


def kill_group(process):
    """Kill the child and whatever processes its tests have left."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)  # it leads its own session
        except ProcessLookupError:
            pass
    else:
        process.kill()
    return process.wait()


def cause_of_death(code, log, timeout):
    """Say how a child died that did not come to its end: status and error of the guilty test."""
    if re.search(r"^Timeout \(", log, re.M):  # what faulthandler writes
        return "timeout", f"no end after {timeout:g} s"
    how = f"died of {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    lines = (
        re.findall(r".*Assertion .* failed.*|^Fatal .*", log, re.M)
        or [line for line in log.splitlines() if line.strip()]
        or [""]
    )
    return "error", f"process {how}: {lines[-1][:200]}"


class Run:
    """One run of test files on one interpreter."""

    def __init__(self, interpreter, options, only=()):
        table = Table(interpreter, options.modules)
        # the big files first: the last job to end should be a short one
        files = sorted(
            (file for file in table.files if not only or file in only),
            key=lambda file: -interpreter.files[file],
        )
        self.interpreter, self.options = interpreter, options
        self.parts = [
            (file, [part, PARTS.get(file, 1)])
            for file in files
            for part in range(PARTS.get(file, 1))
        ]
        self.outcome = Outcome(interpreter, table, files, options.modules)
        self.job = {
            "loop": options.loop,
            "modules": options.modules,
            "timeout": options.timeout,
            "not_yet_timeout": min(options.timeout, NOT_YET_TIMEOUT),
            "left_out": table.regexes(NOT_APPLICABLE),
            "not_yet": table.regexes(NOT_YET),
        }
        self.deadline = time.monotonic() + options.budget

    def run(self):
        """Run everything and return the Outcome."""
        began = time.monotonic()
        with ThreadPoolExecutor(self.options.jobs) as pool:
            for results in pool.map(self.run_part, *zip(*self.parts, strict=True)):
                self.outcome.results.update(results)
            if self.options.retry:
                list(pool.map(self.retry, self.outcome.unexpected))
        self.outcome.secs = time.monotonic() - began
        return self.outcome

    def run_part(self, file, part):
        """Run a part of a file, with as many children as it takes.  -> test id to Result."""
        plan, left_out, done, fixture = [file], [], {}, None
        while True:
            events, death = self.spawn(file, part, done=done)
            known, current = len(done), None
            for event in events:
                if "plan" in event:
                    plan, left_out = event["plan"], event["left_out"]
                elif "start" in event:
                    current = event["start"]
                elif "id" in event:
                    done[event["id"]] = Result(file=file, **event)
                elif event["fixture"]:
                    fixture = event["fixture"]
            if death and current:  # of the test that started last, or of its fixture
                result = done.setdefault(current, Result(current, file, ""))
                result.status, result.error = death
            if not death or len(done) == known or self.out_of_time():
                break
        status, error = fixture or death or ("error", "not run")
        for name in plan:  # what a failed fixture or the budget has left
            done.setdefault(name, Result(name, file, status, error, ran=False))
        for result in done.values():
            self.judge(result)
        return done | {name: Result(name, file, NOT_APPLICABLE) for name in left_out}

    def judge(self, result):
        """Turn the bare status into what it means here; what is not about a test stays as it is."""
        broken_file = "." not in result.id or result.id.startswith("unittest.")
        if result.status == "skipped" or broken_file:
            return
        if result.status == "passed" and not self.outcome.proves(result):
            result.status = NO_LOOP  # it says nothing about the candidate
        elif self.outcome.table.find(result.id, NOT_YET):
            result.status = STALE if result.status == "passed" else NOT_YET

    def retry(self, result):
        """Give a test that failed a second chance, alone in a process."""
        if result.status not in FAILED or not result.ran or self.out_of_time():
            return
        for event in self.spawn(result.file, only=[result.id])[0]:
            if event.get("id") == result.id and event["status"] == "passed":
                self.outcome.flaky[result.id] = result.error
                result.status, result.error = "passed", ""

    def out_of_time(self):
        return time.monotonic() > self.deadline

    def spawn(self, file, part=(0, 1), only=(), done=()):
        """Run one child.  -> its events, and how it died (status, error), None if it ended."""
        with tempfile.TemporaryDirectory(prefix="conformance-") as tmp:
            tmp = Path(tmp)
            job = dict(
                self.job,
                file=file,
                part=part,
                only=list(only),
                done=list(done),
                events=str(tmp / "events"),
            )
            (tmp / "job").write_text(json.dumps(job))
            code = self.wait_for_child(tmp)
            log = (tmp / "log").read_text(errors="replace")
            events = self.read_events(tmp / "events")
        if self.options.logs:
            with open(self.options.logs / f"{file}.log", "a") as f:
                f.write(log)
        if events and "end" in events[-1]:
            return events, None
        if self.out_of_time():
            return events, ("error", "out of time (--budget)")
        return events, cause_of_death(code, log, self.options.timeout)

    def wait_for_child(self, tmp):
        """Start the child on tmp/job, wait for its end or the deadline.  -> its exit code."""
        cwd = tmp / "cwd"
        cwd.mkdir()
        with open(tmp / "log", "w") as log:
            process = subprocess.Popen(
                [self.interpreter.python, CHILD, tmp / "job"],
                cwd=cwd,
                stdout=log,
                stderr=log,
                env=environment() | {"TMPDIR": str(cwd)},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                process.wait(max(5, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            return kill_group(process)

    @staticmethod
    def read_events(path):
        """Read the child's events; a line cut short by its death is dropped."""
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
