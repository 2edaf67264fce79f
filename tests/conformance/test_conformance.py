"""CPython's own asyncio tests on veloop: one test here for each file of test.test_asyncio.

VELOOP_CONFORMANCE_LOOP=asyncio:new_event_loop runs them on another loop, as a control.
"""

import os
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
BUDGET = 280  # seconds for a file; one that is all right takes up to fifteen

INTERPRETER = Interpreter.probe(sys.executable, LOOP)
FILES = Table(INTERPRETER).files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(BUDGET + 20),
    pytest.mark.skipif(not FILES, reason="this interpreter has no test.test_asyncio"),
]


@pytest.mark.parametrize("file", FILES or ["all"])
def test_file(file):
    """Every test of the file passes, or the table says why not."""
    outcome = Run(INTERPRETER, Options(LOOP, budget=BUDGET), only=[file]).run()
    problems = list(report.problems(outcome))
    assert not problems, "\n".join([*report.table(outcome), *problems])
