"""events.py: which loop is the current one. Its handles: test_loop.py."""

import asyncio
import sys
import warnings

import pytest

from helpers import import_veloop, in_thread, new_event_loop, run

MAKES_LOOPS = sys.version_info < (3, 14)
makes_loops = pytest.mark.skipif(not MAKES_LOOPS, reason="get_event_loop() makes no loop any more")


@pytest.fixture(autouse=True)
def _no_policy(_process_guard):
    """As in a new process: no policy yet, hence no current loop."""
    events = asyncio.events
    old, events._event_loop_policy = events._event_loop_policy, None
    yield
    events._event_loop_policy = old


@pytest.fixture(scope="module", autouse=True)
def _warm_up():
    """What a process opens once, with its first loop, must not be taken for a leak."""
    new_event_loop("veloop").close()


def made_by_default(get_event_loop):
    """The loop that get_event_loop() makes, closed; and the warnings meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = get_event_loop()
        assert get_event_loop() is loop
        assert asyncio.get_event_loop() is loop
    asyncio.set_event_loop(None)
    loop.close()
    return loop, caught


def test_running_loop_and_its_setter_are_asyncios():
    veloop = import_veloop()
    assert veloop.get_running_loop is asyncio.get_running_loop
    assert veloop.set_event_loop is asyncio.set_event_loop


def test_get_running_loop(aio, loop):
    async def main():
        return aio.get_running_loop()

    assert run(loop, main()) is loop
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.get_running_loop()


def test_running_loop_is_the_current_one(aio, loop, new_loop):
    async def main():
        return aio.get_event_loop()

    aio.set_event_loop(new_loop())
    assert run(loop, main()) is loop
    aio.set_event_loop(None)


def test_loop_that_was_set_is_the_current_one(aio, loop):
    aio.set_event_loop(loop)
    assert aio.get_event_loop() is loop
    assert asyncio.get_event_loop() is loop
    aio.set_event_loop(None)


def test_no_loop_after_none_was_set(aio):
    aio.set_event_loop(None)
    with pytest.raises(RuntimeError, match="no current event loop in thread 'MainThread'"):
        aio.get_event_loop()


def test_no_loop_in_another_thread(aio):
    def work():
        with pytest.raises(RuntimeError, match="no current event loop in thread 'test-"):
            aio.get_event_loop()

    in_thread(work)


@pytest.mark.skipif(MAKES_LOOPS, reason="makes a loop")
def test_no_loop_is_made(aio):
    with pytest.raises(RuntimeError, match="no current event loop"):
        aio.get_event_loop()


@makes_loops
def test_loop_is_made_in_the_main_thread(aio):
    loop, caught = made_by_default(aio.get_event_loop)
    assert (type(loop) is import_veloop().EventLoop) == (aio is not asyncio)
    if sys.version_info < (3, 12):
        assert caught == []
    else:
        (warning,) = caught
        assert warning.category is DeprecationWarning
        assert str(warning.message) == "There is no current event loop"
        assert warning.filename == __file__


@makes_loops
def test_default_policy_that_is_in_use_already_is_asked_for_nothing(aio):
    asyncio.get_event_loop_policy()
    loop, _ = made_by_default(aio.get_event_loop)
    assert (type(loop) is import_veloop().EventLoop) == (aio is not asyncio)


@makes_loops
def test_policy_of_the_program_decides(aio):
    class Policy(asyncio.DefaultEventLoopPolicy):
        def get_event_loop(self):
            raise LookupError("by the policy")

    asyncio.set_event_loop_policy(Policy())
    with pytest.raises(LookupError, match="by the policy"):
        aio.get_event_loop()


@makes_loops
def test_policy_of_the_program_makes_the_loop(aio):
    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self):
            return new_event_loop("asyncio")

    asyncio.set_event_loop_policy(Policy())
    loop, _ = made_by_default(aio.get_event_loop)
    assert type(loop) is type(new_closed("asyncio"))


def new_closed(kind):
    loop = new_event_loop(kind)
    loop.close()
    return loop


@makes_loops
def test_default_policy_of_veloop_makes_veloops_loops():
    veloop = import_veloop()
    assert veloop.DefaultEventLoopPolicy is veloop.EventLoopPolicy
    veloop.set_event_loop_policy(veloop.DefaultEventLoopPolicy())
    for get_event_loop in (veloop.get_event_loop, asyncio.get_event_loop):
        loop, _ = made_by_default(get_event_loop)
        assert type(loop) is veloop.EventLoop
        asyncio.set_event_loop_policy(veloop.DefaultEventLoopPolicy())


def test_new_event_loop_is_ours():
    veloop = import_veloop()
    loop = veloop.new_event_loop()
    assert type(loop) is veloop.EventLoop
    loop.close()
