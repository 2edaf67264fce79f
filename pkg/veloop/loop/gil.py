"""How other threads come to the GIL while callbacks keep the loop busy.

Who waits for the GIL asks for it once sys.getswitchinterval() seconds are over, and gets it at the
next Python function. But each time that the GIL is free for a moment in between, CPython lets the
waiting thread begin anew: a loop that looks for I/O all the time, without a wait, could keep it
waiting for seconds.

The accelerator keeps the GIL while it looks, and calls a Python function now and then, for there
may be none among its callbacks. The plain loop looks through cffi, which always gives the GIL up:
what helps there is to give it up for long enough.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

# How often (seconds) a busy loop gives way, and for how long: what a thread needs to wake up.
GIVE_WAY_EVERY = 5e-3
_MOMENT = 50e-6

_sleep = time.sleep


def checkpoint() -> None:
    """Nothing: CPython itself gives the GIL away here, to who has asked for it."""


def has_gil() -> bool:
    """Is there a GIL, and is it CPython's? PyPy's serves who waits at each call into C."""
    if sys.implementation.name != "cpython":
        return False
    is_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or is_enabled()


def give_way() -> None:
    """Let the other threads of Python have the GIL for a moment, if there are any."""
    if threading.active_count() > 1 and has_gil():
        _sleep(_MOMENT)
