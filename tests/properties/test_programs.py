"""Random programs do the same with veloop's modules as with asyncio's, on either loop.

The model is asyncio on its own loop. Two sorts of runs: one that is the same every time, and one
with a seed of its own, which a failure shows; VELOOP_SEED=<number> runs it again.
"""

import asyncio
import os
import random

import hypothesis
import interpreter
import programs
import pytest

import helpers

SEED = int(os.environ.get("VELOOP_SEED") or random.SystemRandom().randrange(1 << 32))
# VELOOP_PROGRAMS=10 runs ten times as many.
SCALE = int(os.environ.get("VELOOP_PROGRAMS", "1"))

SETTINGS = hypothesis.settings(
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    # What is explained is a second failing run of many programs; the difference says enough.
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
)

pytestmark = pytest.mark.slow


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
            raise AssertionError(difference(name, expected, trace) + f"\nVELOOP_SEED={SEED}")


def difference(name, expected, trace):
    """The steps before the first one that differs, and a few of both sides behind it."""
    same = 0
    while same < min(len(expected), len(trace)) and expected[same] == trace[same]:
        same += 1
    lines = [f"{name}: step {same} differs from asyncio on its own loop"]
    lines += [f"    {line(step)}" for step in expected[max(0, same - 12) : same]]
    lines += [f"  - {line(step)}" for step in expected[same : same + 4]] or ["  - (the end)"]
    lines += [f"  + {line(step)}" for step in trace[same : same + 4]] or ["  + (the end)"]
    return "\n".join(lines)


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
