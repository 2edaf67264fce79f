"""signals.py: add_signal_handler and remove_signal_handler, and signals that are not the loop's.

Ctrl-C, which needs processes of its own, is in test_signals_interrupt.py.
"""

import asyncio
import contextvars
import ctypes
import os
import signal
import socket
import threading
import time

import pytest

from children import run_script
from helpers import (
    PATIENCE,
    WINDOWS,
    Background,
    in_thread,
    run,
    run_turns,
    run_until,
    socket_pair,
    wait_until_idle,
)
from tcp_helpers import until

pytestmark = pytest.mark.skipif(WINDOWS, reason="sends itself signals that Windows lacks")

if not WINDOWS:
    USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2

var = contextvars.ContextVar("var", default="unset")


@pytest.fixture(autouse=True)
def _handlers_are_restored():
    watched = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCHLD")]
    before = [signal.getsignal(number) for number in watched]
    yield
    after = [signal.getsignal(number) for number in watched]
    for number, handler in zip(watched, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def kill_when_running(loop):
    """Send a signal to this process from a thread, as soon as the loop runs, or sleeps."""
    started = threading.Event()
    threads = []
    main = threading.get_native_id()

    def send(number, idle=False):
        def work():
            assert started.wait(PATIENCE)
            if idle:
                wait_until_idle(os.getpid(), main)
            os.kill(os.getpid(), number)

        loop.call_soon(started.set)
        threads.append(Background(work))

    yield send
    for thread in threads:
        thread.result()


# ------------------------------------------------------------ delivery


def test_handler_is_called_in_a_turn_of_the_loop(loop):
    seen = []

    def handler(*args):
        seen.append((args, asyncio.get_running_loop()))

    loop.add_signal_handler(USR1, handler, 1, "two")
    signal.raise_signal(USR1)
    # Not in the signal's own frame.
    assert seen == []
    run_until(loop, lambda: seen)
    assert seen == [((1, "two"), loop)]
    assert loop.remove_signal_handler(USR1) is True


def test_signal_wakes_an_idle_loop(loop, kill_when_running):
    loop.add_signal_handler(USR1, loop.stop)
    kill_when_running(USR1)
    loop.run_forever()
    loop.remove_signal_handler(USR1)


def test_signal_wakes_a_loop_that_waits_for_a_timer(loop, kill_when_running):
    loop.add_signal_handler(USR1, loop.stop)
    timer = loop.call_later(3600, print)
    kill_when_running(USR1)
    loop.run_forever()
    timer.cancel()
    loop.remove_signal_handler(USR1)


def test_signal_reaches_a_busy_loop(loop, kill_when_running):
    done = []

    def spin():
        if not done:
            loop.call_soon(spin)

    loop.add_signal_handler(USR1, done.append, 1)
    loop.call_soon(spin)
    kill_when_running(USR1)
    run_until(loop, lambda: done, turns=10_000_000)
    loop.remove_signal_handler(USR1)
    run_turns(loop)


def test_signals_are_handled_in_the_order_they_came(loop):
    seen = []
    loop.add_signal_handler(USR1, seen.append, 1)
    loop.add_signal_handler(USR2, seen.append, 2)
    for number in (USR1, USR2, USR2, USR1, USR2):
        signal.raise_signal(number)
    run_until(loop, lambda: len(seen) == 5)
    assert seen == [1, 2, 2, 1, 2]
    loop.remove_signal_handler(USR1)
    loop.remove_signal_handler(USR2)


def test_signal_before_the_loop_runs_is_kept(loop):
    loop.add_signal_handler(USR1, loop.stop)
    signal.raise_signal(USR1)
    loop.run_forever()
    loop.remove_signal_handler(USR1)


def test_signal_between_two_runs_is_kept(loop):
    loop.add_signal_handler(USR1, loop.stop)
    run_turns(loop, 3)
    signal.raise_signal(USR1)
    loop.run_forever()
    loop.remove_signal_handler(USR1)


def test_many_signals_in_a_row_all_arrive(loop):
    # One after the other: the kernel may merge those that are pending together.
    seen = []
    loop.add_signal_handler(USR1, seen.append, 1)
    for number in range(200):
        signal.raise_signal(USR1)
        run_until(loop, lambda number=number: len(seen) == number + 1)
    loop.remove_signal_handler(USR1)


def test_signal_sent_to_another_thread_reaches_the_loop(loop):
    ready, release = threading.Event(), threading.Event()

    def work():
        ready.set()
        release.wait(PATIENCE)

    loop.add_signal_handler(USR1, loop.stop)
    with Background(work) as worker:
        assert ready.wait(PATIENCE)
        signal.pthread_kill(worker.thread.ident, USR1)
        loop.run_forever()
        release.set()
    loop.remove_signal_handler(USR1)


def test_sigchld_can_be_handled(loop):
    seen = []
    loop.add_signal_handler(signal.SIGCHLD, seen.append, 1)
    signal.raise_signal(signal.SIGCHLD)
    run_until(loop, lambda: seen)
    assert loop.remove_signal_handler(signal.SIGCHLD) is True


def test_sigint_can_be_handled_instead_of_interrupting(loop):
    loop.add_signal_handler(signal.SIGINT, loop.stop)
    signal.raise_signal(signal.SIGINT)
    loop.run_forever()
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_runs_in_the_context_it_was_added_in(loop):
    seen = []
    token = var.set("adding")
    loop.add_signal_handler(USR1, lambda: seen.append(var.get()))
    var.reset(token)
    signal.raise_signal(USR1)
    run_until(loop, lambda: seen)
    assert seen == ["adding"]
    loop.remove_signal_handler(USR1)


def test_exception_in_a_handler_is_reported(loop, loop_errors):
    def handler():
        raise ValueError("in the handler")

    loop.add_signal_handler(USR1, handler)
    for _ in range(2):
        signal.raise_signal(USR1)
        run_until(loop, lambda: loop_errors.items)
        assert str(loop_errors.take_one()["exception"]) == "in the handler"
    assert loop.remove_signal_handler(USR1) is True


# ------------------------------------------------------------ replacing and removing


def test_adding_again_replaces_the_handler(loop):
    seen = []
    loop.add_signal_handler(USR1, seen.append, "first")
    loop.add_signal_handler(USR1, seen.append, "second")
    signal.raise_signal(USR1)
    run_until(loop, lambda: seen)
    assert seen == ["second"]
    assert loop.remove_signal_handler(USR1) is True
    assert loop.remove_signal_handler(USR1) is False


def test_removing_tells_whether_there_was_a_handler(loop):
    assert loop.remove_signal_handler(USR1) is False
    loop.add_signal_handler(USR1, print)
    assert loop.remove_signal_handler(USR2) is False
    assert loop.remove_signal_handler(USR1) is True
    assert loop.remove_signal_handler(USR1) is False


def test_removing_restores_the_default(loop):
    for number, default in ((USR1, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        loop.add_signal_handler(number, print)
        assert signal.getsignal(number) is not default
        loop.remove_signal_handler(number)
        assert signal.getsignal(number) is default


def test_handler_may_remove_itself(loop):
    seen = []

    def handler():
        seen.append(loop.remove_signal_handler(USR1))

    loop.add_signal_handler(USR1, handler)
    signal.raise_signal(USR1)
    run_until(loop, lambda: seen)
    assert seen == [True]


def test_signal_whose_handler_was_removed_in_between_is_dropped(loop):
    seen = []
    loop.add_signal_handler(USR1, seen.append, 1)
    loop.add_signal_handler(USR2, seen.append, 2)
    signal.raise_signal(USR1)
    signal.raise_signal(USR2)
    loop.remove_signal_handler(USR1)
    run_until(loop, lambda: seen)
    run_turns(loop, 3)
    assert seen == [2]
    loop.remove_signal_handler(USR2)


def test_close_removes_the_handlers(new_loop):
    loop = new_loop()
    loop.add_signal_handler(USR1, print)
    loop.add_signal_handler(signal.SIGINT, print)
    loop.close()
    assert signal.getsignal(USR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    assert loop.remove_signal_handler(USR1) is False


def test_other_loops_handler_stays_when_one_closes(new_loop):
    first, second = new_loop(), new_loop()
    seen = []
    first.add_signal_handler(USR1, print)
    first.remove_signal_handler(USR1)
    second.add_signal_handler(USR2, seen.append, 2)
    first.close()
    signal.raise_signal(USR2)
    run_until(second, lambda: seen)
    second.remove_signal_handler(USR2)


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize("number", ["SIGUSR1", 10.0, None, b"10"], ids=repr)
def test_signal_that_is_no_number_is_refused(loop, number):
    with pytest.raises(TypeError, match="sig must be an int, not "):
        loop.add_signal_handler(number, print)
    with pytest.raises(TypeError, match="sig must be an int, not "):
        loop.remove_signal_handler(number)


@pytest.mark.parametrize("number", [0, -1, 1000, 2**40])
def test_signal_that_does_not_exist_is_refused(loop, number):
    with pytest.raises(ValueError, match=f"invalid signal number {number}"):
        loop.add_signal_handler(number, print)
    with pytest.raises(ValueError, match=f"invalid signal number {number}"):
        loop.remove_signal_handler(number)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_signal_that_cannot_be_caught_is_refused(loop, name):
    number = getattr(signal, name)
    with pytest.raises(RuntimeError, match=f"sig {int(number)} cannot be caught"):
        loop.add_signal_handler(number, print)
    assert loop.remove_signal_handler(number) is False
    assert signal.set_wakeup_fd(-1) == -1


def test_coroutine_as_handler_is_refused(loop):
    async def coroutine():
        raise AssertionError

    coro = coroutine()
    for handler in (coroutine, coro):
        with pytest.raises(TypeError, match="coroutines cannot be used with add_signal_handler"):
            loop.add_signal_handler(USR1, handler)
    coro.close()
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_handler_in_another_thread_is_refused(new_loop):
    loop = new_loop()

    def work():
        async def main():
            loop.add_signal_handler(USR1, print)

        with pytest.raises(RuntimeError, match="main thread"):
            run(loop, main())
        with pytest.raises(RuntimeError, match="main thread"):
            loop.add_signal_handler(USR1, print)

    in_thread(work)
    assert loop.remove_signal_handler(USR1) is False


def test_handler_on_a_closed_loop_is_refused(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_signal_handler(USR1, print)
    assert signal.getsignal(USR1) is signal.SIG_DFL


# ------------------------------------------------------------ signals of the program


@pytest.fixture
def program_handler():
    """A handler of the program's own for SIGUSR1, and what it saw."""
    seen = []
    before = signal.signal(USR1, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(USR1, before)


def test_programs_own_handler_runs_while_the_loop_is_idle(loop, kill_when_running):
    # libuv goes on waiting after EINTR; Python's handlers must run all the same, and at once.
    before = signal.signal(USR1, lambda number, frame: loop.call_soon_threadsafe(loop.stop))
    try:
        kill_when_running(USR1, idle=True)
        loop.run_forever()
    finally:
        signal.signal(USR1, before)


def test_exception_of_the_programs_own_handler_ends_an_idle_run(loop, kill_when_running):
    class Alarm(Exception):
        pass

    def handler(number, frame):
        raise Alarm

    before = signal.signal(USR1, handler)
    try:
        kill_when_running(USR1, idle=True)
        with pytest.raises(Alarm):
            loop.run_forever()
    finally:
        signal.signal(USR1, before)
    assert run(loop, asyncio.sleep(0, "usable")) == "usable"


def test_interrupt_that_comes_with_something_to_read_does_not_cost_its_waiter_the_news(loop):
    class Interrupt(KeyboardInterrupt):
        pass

    def handler(number, frame):
        raise Interrupt

    send_signal = ctypes.CDLL(None)["raise"]  # back from it Python does not look for signals
    before = signal.signal(USR1, handler)
    try:
        with socket_pair() as (left, right):
            task = loop.create_task(loop.sock_recv(left, 10))
            run_turns(loop)
            loop.call_soon(right.send, b"x")
            loop.call_soon(time.sleep, 0.001)  # so long that a turn looks for I/O behind it
            loop.call_soon(send_signal, USR1)
            with pytest.raises(Interrupt):
                loop.run_forever()
            assert run(loop, asyncio.wait_for(task, PATIENCE)) == b"x"
    finally:
        signal.signal(USR1, before)


@pytest.mark.veloop_only("asyncio sleeps through a signal that comes just before it begins to wait")
@pytest.mark.parametrize("idle", [False, True])
def test_programs_own_handler_runs_when_the_signal_comes_on_the_way_to_the_poll(loop, idle):
    # Or when it is there, as another thread looks at it: PyPy forgets some of these for a while.
    before = signal.signal(USR1, lambda number, frame: loop.call_soon_threadsafe(loop.stop))
    rounds = 300
    running = threading.Semaphore(0)
    main = threading.get_native_id()

    def work():
        for _ in range(rounds):
            assert running.acquire(timeout=PATIENCE)
            if idle:
                wait_until_idle(os.getpid(), main)
            os.kill(os.getpid(), USR1)

    try:
        with Background(work):
            for _ in range(rounds):
                loop.call_soon(running.release)
                loop.run_forever()
    finally:
        signal.signal(USR1, before)


@pytest.fixture
def program_wakeup():
    """The program's own wakeup descriptor, and a handler: what comes there can be read."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.signal(USR1, lambda number, frame: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        yield reader, writer
        signal.set_wakeup_fd(-1)
        signal.signal(USR1, before)


def test_programs_own_wakeup_descriptor_is_told_while_the_loop_runs(loop, program_wakeup):
    reader, writer = program_wakeup

    async def main():
        os.kill(os.getpid(), USR1)
        return await asyncio.wait_for(loop.sock_recv(reader, 10), PATIENCE)

    assert run(loop, main()) == bytes([USR1])
    os.kill(os.getpid(), USR1)
    assert reader.recv(10) == bytes([USR1])
    assert signal.set_wakeup_fd(-1) == writer.fileno()


@pytest.mark.veloop_only("Python writes to the number, whatever it is now")
def test_programs_own_wakeup_descriptor_was_closed_and_its_number_is_another(loop, program_wakeup):
    _, writer = program_wakeup
    ours, theirs = socket.socketpair()
    seen = []

    async def main():
        number = writer.fileno()
        writer.close()
        os.dup2(theirs.fileno(), number)
        try:
            loop.add_signal_handler(USR2, seen.append, USR2)
            os.kill(os.getpid(), USR1)
            os.kill(os.getpid(), USR2)
            await asyncio.wait_for(until(lambda: seen), PATIENCE)
            loop.remove_signal_handler(USR2)
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                ours.recv(10)
        finally:
            signal.set_wakeup_fd(-1)
            os.close(number)

    with ours, theirs:
        run(loop, main())


def test_programs_own_handler_works_beside_the_loops(loop, program_handler):
    seen = []
    loop.add_signal_handler(USR2, seen.append, 2)
    signal.raise_signal(USR1)
    signal.raise_signal(USR2)
    run_until(loop, lambda: seen)
    assert program_handler == [USR1]
    loop.remove_signal_handler(USR2)


def test_programs_own_handler_stays_over_a_run(loop, program_handler):
    run(loop, asyncio.sleep(0))
    signal.raise_signal(USR1)
    loop.close()
    signal.raise_signal(USR1)
    assert program_handler == [USR1, USR1]


def test_loop_in_another_thread_leaves_signals_alone(new_loop, program_handler):
    loop = new_loop()
    with Background(loop.run_forever):
        signal.raise_signal(USR1)
        loop.call_soon_threadsafe(loop.stop)
    assert program_handler == [USR1]


@pytest.fixture
def wakeup_pair():
    """The program's own wakeup fd, as other event loops and GUIs use it."""
    with socket_pair() as (reading, writing):
        before = signal.set_wakeup_fd(writing.fileno())
        try:
            yield reading, writing.fileno()
        finally:
            signal.set_wakeup_fd(before)


def test_programs_wakeup_fd_stays_over_a_run(loop, wakeup_pair):
    reading, number = wakeup_pair
    run(loop, asyncio.sleep(0))
    assert signal.set_wakeup_fd(number) == number
    loop.close()
    assert signal.set_wakeup_fd(number) == number
    with pytest.raises(BlockingIOError):
        reading.recv(1)


@pytest.mark.veloop_only("asyncio sets the wakeup fd to -1 whatever it was")
def test_programs_wakeup_fd_is_back_after_the_last_handler(loop, wakeup_pair):
    _, number = wakeup_pair
    loop.add_signal_handler(USR1, print)
    loop.add_signal_handler(USR2, print)
    run_turns(loop, 2)
    loop.remove_signal_handler(USR1)
    loop.remove_signal_handler(USR2)
    assert signal.set_wakeup_fd(number) == number


@pytest.mark.veloop_only("asyncio sets the wakeup fd to -1 whatever it was")
def test_programs_wakeup_fd_is_back_after_close(new_loop, wakeup_pair):
    _, number = wakeup_pair
    loop = new_loop()
    loop.add_signal_handler(USR1, print)
    loop.close()
    assert signal.set_wakeup_fd(number) == number


def test_wakeup_fd_is_free_after_the_last_handler(loop):
    loop.add_signal_handler(USR1, print)
    loop.remove_signal_handler(USR1)
    assert signal.set_wakeup_fd(-1) == -1


def test_more_signals_than_the_wakeup_buffer_holds(loop_kind):
    # Python complains that the buffer is full, 70,000 times; the loop must not care.
    source = """
    sys.unraisablehook = lambda *args: None
    seen = []
    loop = new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), loop.stop()))
    for _ in range(70_000):
        signal.raise_signal(signal.SIGUSR1)
    loop.run_forever()
    for _ in range(5):
        while not seen:
            loop.run_forever()
        seen.clear()
        signal.raise_signal(signal.SIGUSR1)
    loop.close()
    """
    run_script(loop_kind, source)
