"""wakeup.py: call_soon_threadsafe, and what other threads must not do."""

import asyncio
import contextlib
import socket
import sys
import threading
import time

import pytest

from helpers import (
    PATIENCE,
    Background,
    RecordingProtocol,
    drain,
    in_thread,
    listening_socket,
    run,
    run_turns,
)


def test_callback_of_a_thread_runs_in_the_loops_thread(loop):
    idents = []

    async def main():
        done = loop.create_future()

        def callback():
            idents.append(threading.get_ident())
            done.set_result(None)

        with Background(loop.call_soon_threadsafe, callback):
            await done

    run(loop, main())
    assert idents == [threading.get_ident()]


def test_idle_loop_is_woken(loop):
    # With nothing else to do the loop waits without limit; only the call can end this.
    started = threading.Event()
    loop.call_soon(started.set)

    def waker():
        assert started.wait(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)

    with Background(waker):
        loop.run_forever()


def test_loop_waiting_for_a_timer_is_woken(loop):
    started = threading.Event()
    loop.call_soon(started.set)
    handle = loop.call_later(3600, print)

    def waker():
        assert started.wait(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)

    with Background(waker):
        loop.run_forever()
    handle.cancel()


def test_idle_loop_is_woken_again_and_again(loop):
    # Each call is made only when the loop has answered the one before.
    answered = threading.Semaphore(0)

    def caller():
        for _ in range(300):
            loop.call_soon_threadsafe(answered.release)
            assert answered.acquire(timeout=PATIENCE)
        loop.call_soon_threadsafe(loop.stop)

    with Background(caller):
        loop.run_forever()


def test_callbacks_of_one_thread_keep_their_order(loop):
    seen = []

    def caller():
        for number in range(1000):
            loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(loop.stop)

    with Background(caller):
        loop.run_forever()
    assert seen == list(range(1000))


def test_eight_threads_lose_nothing(loop):
    count = 1000
    barrier = threading.Barrier(8)
    seen = []
    finished = []

    def caller(number):
        barrier.wait(PATIENCE)
        for index in range(count):
            loop.call_soon_threadsafe(seen.append, (number, index))
        loop.call_soon_threadsafe(finish)

    def finish():
        finished.append(1)
        if len(finished) == 8:
            loop.stop()

    with contextlib.ExitStack() as stack:
        for number in range(8):
            stack.enter_context(Background(caller, number))
        loop.run_forever()
    assert len(seen) == 8 * count
    for number in range(8):
        assert [index for who, index in seen if who == number] == list(range(count))


def test_calls_before_the_loop_runs_are_kept(loop):
    seen = []
    in_thread(loop.call_soon_threadsafe, seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    run_turns(loop)
    assert seen == [1, 2]


def test_call_between_two_runs_wakes_the_next_run(loop):
    run_turns(loop)
    in_thread(loop.call_soon_threadsafe, loop.stop)
    loop.run_forever()


def test_call_from_the_loops_own_thread(loop):
    seen = []

    async def main():
        loop.call_soon_threadsafe(seen.append, 1)
        assert seen == []
        await asyncio.sleep(0)
        return seen

    assert run(loop, main()) == [1]


def test_order_with_call_soon_is_the_order_of_the_calls(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    loop.call_soon(seen.append, 3)
    run_turns(loop)
    assert seen == [1, 2, 3]


def test_call_after_close_is_refused_in_any_thread(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        in_thread(loop.call_soon_threadsafe, print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon_threadsafe(print)


def test_threads_that_race_with_close_get_the_error_and_nothing_else(new_loop):
    for _ in range(20):
        loop = new_loop()
        begun = threading.Semaphore(0)

        def caller(loop=loop, begun=begun):
            begun.release()
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                while True:
                    loop.call_soon_threadsafe(int)

        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(Background(caller))
            for _ in range(3):
                assert begun.acquire(timeout=PATIENCE)
            run_turns(loop, 3)
            loop.close()


def test_exception_in_a_threads_callback_is_reported(loop, loop_errors):
    def fail():
        raise ValueError("from a thread")

    in_thread(loop.call_soon_threadsafe, fail)
    run_turns(loop)
    assert str(loop_errors.take_one()["exception"]) == "from a thread"


def test_handle_may_be_cancelled_from_the_thread(loop):
    seen = []

    def caller():
        handle = loop.call_soon_threadsafe(seen.append, "cancelled")
        handle.cancel()

    in_thread(caller)
    run_turns(loop, 2)
    assert seen == []


def test_handle_in_the_report_is_the_one_that_the_thread_has(loop, loop_errors):
    def fail(number):
        raise ValueError(number)

    for debug in False, True:
        loop.set_debug(debug)
        handle = in_thread(loop.call_soon_threadsafe, fail, 7)
        run_turns(loop)
        context = loop_errors.take_one()
        assert context["handle"] is handle
        assert ".fail(" in context["message"]
        assert ".fail(" in repr(handle)


# From 3.14 on a callback that runs cannot be cancelled half-way.
blocking = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")


@blocking
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
@pytest.mark.parametrize("debug", [False, True])
def test_handle_asked_by_a_thread_waits_for_its_callback(loop, method, debug):
    begun = threading.Event()
    seen = []

    def callback():
        begun.set()
        time.sleep(0.05)
        seen.append("done")

    def caller():
        handle = loop.call_soon_threadsafe(callback)
        assert begun.wait(PATIENCE)
        answer = getattr(handle, method)()
        seen.append("answered")
        loop.call_soon_threadsafe(loop.stop)
        return answer

    loop.set_debug(debug)
    with Background(caller) as thread:
        loop.run_forever()
        assert not thread.result()
    assert seen == ["done", "answered"]


@blocking
@pytest.mark.parametrize("debug", [False, True])
def test_handle_may_be_cancelled_by_its_own_callback(loop, debug):
    handles, seen = [], []

    def callback():
        handles[0].cancel()
        seen.append(handles[0].cancelled())

    loop.set_debug(debug)
    handles.append(in_thread(loop.call_soon_threadsafe, callback))
    run_turns(loop)
    assert seen == [True]


@blocking
def test_slow_callback_of_a_thread_is_named(loop, caplog):
    def slow_one():
        time.sleep(0.02)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    in_thread(loop.call_soon_threadsafe, slow_one)
    run_turns(loop)
    assert "slow_one() at" in caplog.text


def test_run_coroutine_threadsafe(loop):
    async def answer():
        await asyncio.sleep(0)
        return 42

    def caller():
        return asyncio.run_coroutine_threadsafe(answer(), loop).result(PATIENCE)

    async def main():
        return await loop.run_in_executor(None, caller)

    assert run(loop, main()) == 42


def test_two_loops_wake_each_other(new_loop):
    ping, pong = new_loop(), new_loop()
    rounds = []

    def serve(number):
        if number < 200:
            rounds.append(number)
            ping.call_soon_threadsafe(hit, number + 1)
        else:
            ping.call_soon_threadsafe(ping.stop)
            pong.stop()

    def hit(number):
        pong.call_soon_threadsafe(serve, number)

    ping.call_soon(hit, 0)
    with Background(pong.run_forever):
        ping.run_forever()
    assert rounds == list(range(200))


# ------------------------------------------------------------ foreign threads


@pytest.mark.veloop_only("asyncio corrupts itself silently outside debug mode")
@pytest.mark.parametrize("operation", ["write", "pause_reading", "write_eof"])
def test_foreign_thread_touching_a_transport_is_refused(loop, operation):
    calls = {"write": lambda transport: transport.write(b"from a thread")}

    def touch(transport):
        call = calls.get(operation, lambda transport: getattr(transport, operation)())
        with pytest.raises(RuntimeError, match="thread") as caught:
            call(transport)
        return str(caught.value)

    async def main():
        with listening_socket() as listener:
            transport, protocol = await loop.create_connection(
                lambda: RecordingProtocol(loop), *listener.getsockname()[:2]
            )
            peer, _ = listener.accept()
            with peer:
                worker = []

                def work():
                    worker.append(threading.current_thread().name)
                    return touch(transport)

                message = await loop.run_in_executor(None, work)
                # Refused means refused: the transport is as it was.
                assert not transport.is_closing()
                transport.write(b"from the loop")
                assert await loop.run_in_executor(None, drain, peer, 13) == b"from the loop"
                peer.shutdown(socket.SHUT_WR)
                await protocol.lost
        return message, worker[0]

    message, worker = run(loop, main())
    assert worker in message
    assert threading.current_thread().name in message


@pytest.mark.parametrize("schedule", ["call_soon", "call_later", "call_at"])
def test_foreign_thread_scheduling_is_refused_in_debug_mode(loop, schedule):
    arguments = {"call_soon": (), "call_later": (1,), "call_at": (1,)}[schedule]

    def touch():
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            getattr(loop, schedule)(*arguments, print)

    async def main():
        await loop.run_in_executor(None, touch)

    loop.set_debug(True)
    run(loop, main())


def test_callback_scheduled_while_the_loop_makes_up_its_mind_to_sleep(loop):
    # A signal's handler may do that, wherever Python code runs: in a clock of the program's, say.
    far = loop.call_later(PATIENCE, loop.stop)
    real, pending = loop.time, [loop.stop]

    def now():
        if pending:
            loop.call_soon_threadsafe(pending.pop())
        return real()

    loop.time = now
    began = real()
    loop.run_forever()
    assert real() - began < PATIENCE / 2
    far.cancel()
    del loop.time
