"""Stock asyncio's loop with a clock that jumps: the model that veloop is compared with.

It does by asyncio's own means what veloop.testing does: where the selector would wait it looks
for I/O once more, and the clock goes on by as much as it was to wait.
"""

import asyncio
import heapq
from itertools import count

import helpers


class _JumpingSelector:
    """asyncio's selector, which never waits."""

    def __init__(self, selector):
        self._selector = selector
        self.now = 0.0

    def __getattr__(self, name):
        return getattr(self._selector, name)

    def select(self, timeout=None):
        events = self._selector.select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("Deadlock: nothing is left that could wake the loop")
            self.now += timeout
        return events


class _OrderedTimer(asyncio.TimerHandle):
    """asyncio says that the order of timers of the same time is undefined; its heap makes it so.

    veloop promises that of their creation, and the model has to as well: else next to every
    program with two equal delays would differ, and nothing could be said about them.
    """

    _number = count()

    def __init__(self, *args):
        super().__init__(*args)
        self.number = next(self._number)

    def __lt__(self, other):
        return (self._when, self.number) < (other._when, other.number)


class StockVirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = _JumpingSelector(self._selector)

    def time(self):
        return self._selector.now

    def call_at(self, when, callback, *args, context=None):
        timer = _OrderedTimer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer


def new_event_loop(kind):
    """A loop of that kind whose clock starts at 0 and jumps; the caller closes it."""
    if kind == "asyncio":
        return StockVirtualLoop()
    helpers.import_veloop()
    import veloop.testing

    return veloop.testing.new_event_loop()
