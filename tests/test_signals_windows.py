"""signals.py on Windows, which has few signals and no kill(): Ctrl-C, Ctrl-Break, and handlers."""

import signal
import threading

import pytest

from helpers import PATIENCE, WINDOWS, Background, run_until
from tcp_helpers import run_forever

pytestmark = [
    pytest.mark.skipif(not WINDOWS, reason="the few signals of Windows"),
    pytest.mark.proactor,  # asyncio's other loop there sleeps on
]

NAMES = ("SIGINT", "SIGBREAK", "SIGTERM")


@pytest.fixture(autouse=True)
def _handlers_are_restored():
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    yield
    after = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    for name, handler in zip(NAMES, before, strict=True):
        signal.signal(getattr(signal, name), handler)
    assert after == before


def raising(loop, number):
    """A thread in which the C library raises the signal, as the console's does; the loop runs."""
    running = threading.Event()
    loop.call_soon(running.set)

    def work():
        assert running.wait(PATIENCE)
        signal.raise_signal(number)

    return Background(work)


def test_ctrl_c_ends_the_sleep_of_a_loop(loop):
    with raising(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        run_forever(loop)


def test_handler_of_the_program_runs_while_the_loop_sleeps(loop):
    seen = []
    before = signal.signal(signal.SIGBREAK, lambda *_: (seen.append(1), loop.stop()))
    try:
        with raising(loop, signal.SIGBREAK):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGBREAK, before)
    assert seen == [1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.veloop_only("asyncio has no handlers on Windows: NotImplementedError")
def test_handler_of_the_loop(loop, name):
    number = getattr(signal, name)
    seen = []
    loop.add_signal_handler(number, seen.append, number)
    with raising(loop, number):
        run_until(loop, lambda: seen)
    assert seen == [number]
    assert loop.remove_signal_handler(number)
    assert not loop.remove_signal_handler(number)


@pytest.mark.veloop_only("asyncio has no handlers on Windows: NotImplementedError")
def test_signal_that_windows_does_not_have_is_refused(loop):
    with pytest.raises(ValueError, match="invalid signal number"):
        loop.add_signal_handler(1, print)
