"""CPython's own asyncio tests on veloop: one test here for each file of test.test_asyncio, and one
more for each that is about the modules around the loop.

VELOOP_CONFORMANCE_LOOP=asyncio:new_event_loop runs them on another loop, as a control.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # run.py's modules are scripts side by side, not a package
    sys.path.insert(0, str(HERE))

import report  # noqa: E402
from harness import Interpreter, Options, Run  # noqa: E402
from table import Table  # noqa: E402

LOOP = os.environ.get("VELOOP_CONFORMANCE_LOOP", "veloop:new_event_loop")
BUDGET = 280  # seconds for all files; they take 20 to 60

LOOP_ONLY, MODULES = "", "veloop"  # whose modules are tested on the loop: asyncio's, ours

try:
    INTERPRETER = Interpreter.probe(sys.executable, LOOP)
    FILES = Table(INTERPRETER).files
    MODULES_FILES = Table(INTERPRETER, MODULES).files
except subprocess.CalledProcessError:  # an error of these tests, not of the collection of all
    INTERPRETER, FILES, MODULES_FILES = None, ["all"], ["all"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(BUDGET + 20),
    pytest.mark.skipif(not FILES, reason="this interpreter has no test.test_asyncio"),
]


def run_all(request, test, modules):
    """All files that this session asks for, run at once: they sleep for most of the time."""
    assert INTERPRETER, f"{LOOP} does not work in a fresh process"
    selected = [
        item.callspec.params["file"]
        for item in request.session.items
        if getattr(item, "function", None) is test
    ]
    return Run(INTERPRETER, Options(LOOP, modules, budget=BUDGET), selected).run()


@pytest.fixture(scope="module")
def loop_outcome(request):
    return run_all(request, test_file, LOOP_ONLY)


@pytest.fixture(scope="module")
def modules_outcome(request):
    return run_all(request, test_file_with_our_modules, MODULES)


def check(part):
    problems = list(report.problems(part))
    assert not problems, "\n".join([*report.table(part), *problems])


@pytest.mark.parametrize("file", FILES)
def test_file(loop_outcome, file):
    """Every test of the file passes, or the table says why not."""
    check(loop_outcome.of(file))


@pytest.mark.parametrize("file", MODULES_FILES)
def test_file_with_our_modules(modules_outcome, file):
    """The same with veloop's modules in the place of asyncio's."""
    check(modules_outcome.of(file))
