"""Random programs do the same with veloop's modules as with asyncio's, on either loop.

The model is asyncio on its own loop. Two sorts of runs: one that is the same every time, and one
with a seed of its own, which a failure shows; VELOOP_SEED=<number> runs it again.
"""

import asyncio

import hypothesis
import interpreter
import pytest
import random_programs as programs

import helpers
from examples import SCALE, SEED, SETTINGS, difference

# A failing program is made smaller, which takes its time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def check(program):
    """AssertionError, with the first difference, unless all four runs of it have one trace."""
    expected = interpreter.run(program, asyncio, "asyncio")
    veloop = helpers.import_veloop()
    for name, aio, kind in (
        ("asyncio's modules on veloop's loop", asyncio, "veloop"),
        ("veloop's modules on asyncio's loop", veloop, "asyncio"),
        ("veloop's modules on veloop's loop", veloop, "veloop"),
    ):
        trace = interpreter.run(program, aio, kind)
        if trace != expected:
            raise AssertionError(f"{name}: {difference(expected, trace, line)}")


def line(step):
    time, where, op, outcome = step
    return f"{time:7.1f}  {where:24} {op:16} {outcome}"


@pytest.mark.parametrize("theme", programs.THEMES)
def test_programs_do_the_same(theme):
    settings = hypothesis.settings(SETTINGS, max_examples=100 * SCALE, derandomize=True)
    settings(hypothesis.given(programs.programs(theme))(check))()


@pytest.mark.parametrize("theme", programs.THEMES)
def test_programs_nobody_has_seen_do_the_same(theme):
    settings = hypothesis.settings(SETTINGS, max_examples=50 * SCALE)
    hypothesis.seed(SEED)(settings(hypothesis.given(programs.programs(theme))(check)))()
