"""When a turn looks for I/O, and when at the clock.

A poll costs more than a callback. So while callbacks keep the loop busy it is left out until
_POLL_EVERY went by; and where callbacks take longer than that, there is one between two of them.
Where other threads compute, a poll takes as long as getting the GIL back, and is repeated only
after as long again, or _POLL_RARELY. The clock costs something, too: it is read after so many
callbacks as take about half of that time.

Where a program has begun to read or to watch (driver.fresh) the next turn looks, as every turn of
asyncio's does: what is there already comes before what is scheduled once it has its transport.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .._uv import lib
from .gil import GIVE_WAY_EVERY, give_way

if TYPE_CHECKING:
    from .core import Core

_monotonic = time.monotonic
vl_loop_run = lib.vl_loop_run

# While callbacks keep the loop busy it looks for I/O this often (seconds), not every turn.
_POLL_EVERY = 25e-6
_POLL_RARELY = 10e-3
_STRIDE_MAX = 32


class Looks:
    """Of one run of the loop."""

    __slots__ = (
        "_driver",
        "_every",
        "_loop",
        "_looked",
        "_pointer",
        "_polled",
        "_waited",
        "stride",
    )

    def __init__(self, loop: Core) -> None:
        self._loop = loop
        self._driver = loop._driver
        self._pointer = loop._driver.pointer
        self._polled = self._waited = 0.0  # the first turn looks for I/O, whatever is ready
        self._every = _POLL_EVERY
        self._looked = 0.0  # at the clock
        self.stride = 1  # callbacks between two looks at the clock

    def at_start(self, timeout: float) -> None:
        """The poll of a turn, if it is time for one or there is nothing else to do."""
        # Are there still records, an exception cut the last turn short: they come first.
        if timeout != 0.0:
            if self._driver.records is None:
                self._poll(timeout)
                self._waited = self._polled
                self._every = _POLL_EVERY
        else:
            self._looked = now = _monotonic()
            driver = self._driver
            if (driver.fresh or now - self._polled > self._every) and driver.records is None:
                self._poll_busy()

    def between(self) -> bool:
        """Poll between two callbacks of a turn, if it is time. -> are there records now?"""
        # The timers of this turn come before what a poll brings, and before all that is added.
        if self._driver.records is not None or self._loop._due:
            return False
        now = _monotonic()
        took = now - self._looked
        self._looked = now
        if took > _POLL_EVERY and self.stride > 1:
            self.stride //= 2
        elif took < _POLL_EVERY / 4 and self.stride < _STRIDE_MAX:
            self.stride *= 2
        # What comes now is not for this turn, if that is the last, or began without debug mode.
        loop = self._loop
        if now - self._polled <= self._every or loop._stopping or loop._debug:
            return False
        self._poll_busy()
        return self._driver.records is not None

    def _poll(self, timeout: float) -> None:
        driver = self._driver
        driver.fresh = False
        n = vl_loop_run(self._pointer, timeout, driver.taken)
        if n:
            driver.take(n)
        self._polled = self._looked = _monotonic()

    def _poll_busy(self) -> None:
        began = self._looked
        self._poll(0.0)
        self._every = min(max(_POLL_EVERY, self._polled - began), _POLL_RARELY)
        if self._polled - self._waited > GIVE_WAY_EVERY:
            give_way()
            self._polled = self._waited = self._looked = _monotonic()
