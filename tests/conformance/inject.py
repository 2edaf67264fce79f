"""Puts the candidate loop wherever the tests of test.test_asyncio look for a default loop.

Runs in the child process, before the test file is loaded. It touches asyncio's and the tests'
attributes only, never the candidate. Every loop goes through a counting factory: the counters are
the proof that a test which passed has passed on the candidate.
"""

import asyncio
import importlib
import mmap
import sys
from asyncio.base_events import BaseEventLoop

if sys.platform == "win32":
    from asyncio import windows_events as platform_events
else:
    from asyncio import unix_events as platform_events

PREFIX = "test.test_asyncio."
LOOP_CLASSES = "EventLoop", "SelectorEventLoop", "ProactorEventLoop"


# How many loops were made so far, in memory that the children which a test forks share with us:
# [CANDIDATE] by the injected factory, [STOCK] by asyncio's own classes, which are the mock loops of
# the tests or leaks of the injection.
CANDIDATE, STOCK = 0, 1
counters = memoryview(mmap.mmap(-1, 16)).cast("q")


def install(spec, file):
    """Divert all default ways to get a loop to 'MODULE:FACTORY', for the tests in the file."""
    factory, loop_type = resolve(spec)

    def new_loop():
        counters[CANDIDATE] += 1
        return factory()

    divert_policy(new_loop)
    divert_classes(new_loop, loop_type)
    replace_child_watcher()
    replace_mocked_loop(file, new_loop)
    close_any_loop()
    count_stock_loops(loop_type)


def resolve(spec):
    """Return the factory and the type of the loops it makes."""
    module, _, name = spec.partition(":")
    factory = getattr(importlib.import_module(module), name)
    probe = factory()
    loop_type = type(probe)
    probe.close()
    if module == "asyncio":  # its factories are about to be diverted: they would recurse
        factory = loop_type
    return factory, loop_type


def divert_policy(new_loop):
    """Serve asyncio.new_event_loop(), run(), Runner() and IsolatedAsyncioTestCase."""
    for name in "_DefaultEventLoopPolicy", "DefaultEventLoopPolicy":  # 3.14 added the underscore
        policy = getattr(platform_events, name, None)
        if policy is not None:
            policy._loop_factory = staticmethod(new_loop)
            return
    raise RuntimeError("this asyncio has no default policy: inject.py must learn its new way")


def divert_classes(new_loop, loop_type):
    """Serve asyncio.SelectorEventLoop(...), asyncio.EventLoop() and isinstance() with them."""

    class StandInType(type):
        def __call__(cls, selector=None):
            if selector is not None:  # the candidate has its own way to poll
                selector.close()
            return new_loop()

        def __instancecheck__(cls, instance):
            return isinstance(instance, loop_type)

    stand_in = StandInType("SelectorEventLoop", (), {})
    for module in asyncio, platform_events:
        for name in LOOP_CLASSES:
            if hasattr(module, name):
                setattr(module, name, stand_in)


def replace_child_watcher():
    """Give set-ups that attach a SafeChildWatcher one that leaves the loop's SIGCHLD alone.

    The threaded watcher also serves candidates that rely on the policy's watcher. Watchers are
    gone in 3.14.
    """
    if hasattr(asyncio, "SafeChildWatcher"):
        asyncio.SafeChildWatcher = asyncio.ThreadedChildWatcher


def replace_mocked_loop(file, new_loop):
    """Two files set up a BaseEventLoop over mocks for tests that any loop can take."""
    if file == "test_runners":
        from test.test_asyncio import test_runners

        def runner_loop(self):
            loop = new_loop()
            loop.shutdown_ag_run = True  # the mock sets it; tearDown() looks for it
            return loop

        test_runners.BaseTest.new_loop = runner_loop
    elif file == "test_pep492":
        from test.test_asyncio import test_pep492, utils

        def set_up(self):
            utils.TestCase.setUp(self)
            self.loop = new_loop()
            self.set_event_loop(self.loop)

        test_pep492.BaseTest.setUp = set_up


def close_any_loop():
    """Make the tests' common clean-up work without the private loop._default_executor."""
    from test.test_asyncio import utils

    close_stock_loop = utils.TestCase.close_loop

    def close_loop(loop):
        if hasattr(loop, "_default_executor"):
            return close_stock_loop(loop)
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    utils.TestCase.close_loop = staticmethod(close_loop)


def count_stock_loops(candidate_type):
    """Count the loops that are asyncio's own and not the candidate's."""
    init = BaseEventLoop.__init__

    def counting_init(self, *args, **kwargs):
        counters[STOCK] += not isinstance(self, candidate_type)
        init(self, *args, **kwargs)

    BaseEventLoop.__init__ = counting_init
