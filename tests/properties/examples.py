"""How many random examples, from which seed, and how a difference is shown."""

import os
import random

import hypothesis

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


def difference(expected, trace, line=str):
    """The steps before the first one that differs, and a few of both sides behind it."""
    both = min(len(expected), len(trace))
    same = next((n for n in range(both) if expected[n] != trace[n]), both)
    lines = [f"step {same} differs from asyncio's (VELOOP_SEED={SEED})"]
    lines += [f"    {line(step)}" for step in expected[max(0, same - 12) : same]]
    lines += [f"  - {line(step)}" for step in expected[same : same + 4]] or ["  - (the end)"]
    lines += [f"  + {line(step)}" for step in trace[same : same + 4]] or ["  + (the end)"]
    return "\n".join(lines)
