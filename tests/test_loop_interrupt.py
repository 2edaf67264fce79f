"""run_forever(): an interrupt in its own code leaves a loop that can be run again."""

import gc
import itertools
import signal
import sys

import pytest

import veloop
from helpers import collect
from veloop.loop import core

PACKAGE = veloop.__path__[0]
RUN_FOREVER = core.Core.run_forever.__code__


def is_below_run_forever(frame):
    while frame is not None and frame.f_code is not RUN_FOREVER:
        frame = frame.f_back
    return frame is not None


def interrupt_at(number):
    """A profile function that raises KeyboardInterrupt at one of the calls of run_forever().

    Signals are handled at the beginning of a function, and at the end of one in C.
    -> that function, and a list that gets the name of where it was.
    """
    done = []
    events = itertools.count()

    def profile(frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return  # a finalizer, say, whose exceptions nobody gets
        if event == "call":
            inside = frame.f_code is not RUN_FOREVER and is_below_run_forever(frame)
        else:
            inside = event == "c_return" and is_below_run_forever(frame)
        if inside and next(events) == number:
            done.append(frame.f_code.co_name)
            raise KeyboardInterrupt

    return profile, done


def run_once(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.fixture
def no_garbage():
    """No finalizer of what other tests left behind is interrupted."""
    collect()
    gc.disable()
    yield
    gc.enable()


def test_interrupt_between_any_two_calls_of_run_forever(no_garbage):
    hooks = sys.get_asyncgen_hooks()
    wakeup = signal.set_wakeup_fd(-1)
    names = set()
    for number in itertools.count():
        loop = veloop.new_event_loop()
        run_once(loop)
        profile, done = interrupt_at(number)
        sys.setprofile(profile)
        try:
            run_once(loop)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        assert not loop.is_running()
        run_once(loop)
        loop.close()
        sys.set_asyncgen_hooks(*hooks)
        signal.set_wakeup_fd(-1)
        if not done:
            break
        names.update(done)
    signal.set_wakeup_fd(wakeup)
    assert {"run_forever", "enter", "leave"} <= names
