"""Stock asyncio's loop with a clock that jumps: the model that veloop is compared with.

It does by asyncio's own means what veloop.testing does: where the selector would wait it looks
for I/O once more, and the clock goes on by as much as it was to wait.
"""

import asyncio

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


class StockVirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = _JumpingSelector(self._selector)

    def time(self):
        return self._selector.now


def new_event_loop(kind):
    """A loop of that kind whose clock starts at 0 and jumps; the caller closes it."""
    if kind == "asyncio":
        return StockVirtualLoop()
    helpers.import_veloop()
    import veloop.testing

    return veloop.testing.new_event_loop()
