"""debug.py, first half: what set_debug(True) adds. test_debug_errors.py has the exception handler.

All of it goes to the logger "asyncio", for that is where operators look.
"""

import asyncio
import logging
import re
import sys

import pytest

from children import run_script
from helpers import Background, collect, in_thread, poll, run, run_turns, socket_pair


@pytest.fixture
def debug_loop(loop):
    loop.set_debug(True)
    return loop


@pytest.fixture
def warnings_log(caplog):
    """Messages logged to "asyncio" as warnings so far."""
    caplog.set_level(logging.WARNING, "asyncio")

    def messages():
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "asyncio" and record.levelno == logging.WARNING
        ]

    return messages


# ------------------------------------------------------------ turning it on


def test_debug_can_be_set_and_unset(loop):
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_debug_can_be_set_while_running(loop):
    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        during = sys.get_coroutine_origin_tracking_depth()
        loop.set_debug(False)
        await asyncio.sleep(0)
        return during, sys.get_coroutine_origin_tracking_depth()

    before = sys.get_coroutine_origin_tracking_depth()
    during, after = run(loop, main())
    assert during > 0
    assert after == before


def test_debug_can_be_set_from_another_thread_while_running(loop):
    async def main():
        await loop.run_in_executor(None, loop.set_debug, True)
        await asyncio.sleep(0)
        return loop.get_debug()

    assert run(loop, main())


SHOW_DEBUG = """
    loop = new_event_loop()
    print(loop.get_debug())
    loop.close()
"""


def test_debug_is_off_by_default(loop_kind):
    assert run_script(loop_kind, SHOW_DEBUG).stdout.strip() == "False"


def test_debug_is_on_with_the_environment_variable(loop_kind):
    done = run_script(loop_kind, SHOW_DEBUG, env={"PYTHONASYNCIODEBUG": "1"})
    assert done.stdout.strip() == "True"


def test_debug_is_on_in_development_mode(loop_kind):
    assert run_script(loop_kind, SHOW_DEBUG, "-X", "dev").stdout.strip() == "True"


def test_empty_environment_variable_does_not_turn_it_on(loop_kind):
    done = run_script(loop_kind, SHOW_DEBUG, env={"PYTHONASYNCIODEBUG": ""})
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------ callbacks


SCHEDULERS = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(1, callback),
    "call_at": lambda loop, callback: loop.call_at(loop.time() + 1, callback),
}


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_coroutine_as_callback_is_refused(debug_loop, schedule):
    async def coroutine():
        raise AssertionError

    coro = coroutine()
    with pytest.raises(TypeError, match="coroutines cannot be used with call_"):
        schedule(debug_loop, coro)
    coro.close()
    with pytest.raises(TypeError, match="coroutines cannot be used with call_"):
        schedule(debug_loop, coroutine)


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_callback_that_cannot_be_called_is_refused(debug_loop, schedule):
    with pytest.raises(TypeError, match=r"a callable object was expected by call_.*'text'"):
        schedule(debug_loop, "text")


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_handle_tells_where_it_was_made(debug_loop, schedule):
    handle = schedule(debug_loop, print)
    assert f"created at {__file__}:" in repr(handle)
    handle.cancel()
    # In debug mode the callback is still named after the cancellation.
    assert "print" in repr(handle)


def test_handle_tells_nothing_of_its_origin_without_debug(loop):
    handle = loop.call_soon(print)
    assert "created at" not in repr(handle)
    handle.cancel()


def test_task_tells_where_it_was_made(debug_loop):
    async def main():
        return None

    task = debug_loop.create_task(main())
    assert task._source_traceback[-1].filename == __file__
    run(debug_loop, task)


def test_scheduling_from_any_thread_is_fine_while_the_loop_does_not_run(debug_loop):
    seen = []
    in_thread(debug_loop.call_soon, seen.append, 1)
    run_turns(debug_loop)
    assert seen == [1]


def test_threadsafe_call_is_fine_from_any_thread(debug_loop):
    with Background(debug_loop.call_soon_threadsafe, debug_loop.stop):
        debug_loop.run_forever()


# ------------------------------------------------------------ slow callbacks


def test_slow_callback_duration_is_a_tenth_of_a_second(loop):
    assert loop.slow_callback_duration == 0.1


def test_slow_callback_is_logged(debug_loop, warnings_log):
    debug_loop.slow_callback_duration = 0

    def a_slow_callback():
        pass

    debug_loop.call_soon(a_slow_callback)
    run_turns(debug_loop)
    [message] = [message for message in warnings_log() if "a_slow_callback" in message]
    assert message.startswith("Executing <Handle ")
    assert __file__ in message
    assert " seconds" in message


def test_slow_timer_callback_is_logged(debug_loop, warnings_log):
    debug_loop.slow_callback_duration = 0

    def a_slow_timer():
        pass

    debug_loop.call_at(debug_loop.time(), a_slow_timer)
    run_turns(debug_loop, 2)
    [message] = [message for message in warnings_log() if "a_slow_timer" in message]
    assert message.startswith("Executing <TimerHandle ")


def test_slow_reader_is_logged(debug_loop, warnings_log):
    debug_loop.slow_callback_duration = 0

    def a_slow_reader():
        left.recv(1)

    with socket_pair() as (left, right):
        right.send(b"x")
        debug_loop.add_reader(left, a_slow_reader)
        poll(debug_loop)
        debug_loop.remove_reader(left)
    [message] = [message for message in warnings_log() if "a_slow_reader" in message]
    assert message.startswith("Executing <Handle ")


def test_slow_reader_is_logged_once(debug_loop, warnings_log, monkeypatch):
    now = [1000.0]

    def a_slow_reader():
        now[0] += 100
        debug_loop.remove_reader(left)
        debug_loop.stop()

    with socket_pair() as (left, right):
        debug_loop.add_reader(left, a_slow_reader)
        right.send(b"x")
        monkeypatch.setattr(debug_loop, "time", lambda: now[0])
        debug_loop.run_forever()
    monkeypatch.undo()
    [message] = warnings_log()
    assert "a_slow_reader" in message


def test_slow_step_of_a_task_is_logged_with_the_task(debug_loop, warnings_log):
    debug_loop.slow_callback_duration = 0

    async def a_slow_coroutine():
        await asyncio.sleep(0)

    run(debug_loop, debug_loop.create_task(a_slow_coroutine(), name="a name"))
    messages = [message for message in warnings_log() if "a_slow_coroutine" in message]
    assert messages
    assert all(message.startswith("Executing <Task ") for message in messages)
    assert all("name='a name'" in message for message in messages)


def test_time_of_a_slow_callback_is_the_loops_time(debug_loop, warnings_log, monkeypatch):
    readings = iter(range(1000, 100_000, 7))
    monkeypatch.setattr(debug_loop, "time", lambda: float(next(readings)))

    def a_slow_callback():
        pass

    debug_loop.call_soon(a_slow_callback)
    run_turns(debug_loop)
    monkeypatch.undo()
    [message] = [message for message in warnings_log() if "a_slow_callback" in message]
    seconds = float(re.search(r"took (\S+) seconds", message)[1])
    assert seconds >= 7
    assert seconds % 7 == 0


def test_fast_callback_is_not_logged(debug_loop, warnings_log):
    debug_loop.slow_callback_duration = 1000
    debug_loop.call_soon(lambda: None)
    run_turns(debug_loop)
    assert warnings_log() == []


def test_slow_callback_is_not_logged_without_debug(loop, warnings_log):
    loop.slow_callback_duration = 0
    loop.call_soon(lambda: None)
    run_turns(loop)
    assert warnings_log() == []


def test_interrupt_in_a_callback_under_debug(debug_loop):
    def interrupt():
        raise KeyboardInterrupt

    debug_loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        debug_loop.run_forever()
    assert run(debug_loop, asyncio.sleep(0, "usable")) == "usable"


# ------------------------------------------------------------ coroutines


def test_coroutine_never_awaited_tells_where_it_was_made(debug_loop):
    async def forgotten():
        raise AssertionError

    async def main():
        forgotten()
        collect()

    with pytest.warns(RuntimeWarning, match="was never awaited") as caught:
        run(debug_loop, main())
    text = str(caught[0].message)
    assert "Coroutine created at" in text
    assert __file__ in text


def test_coroutine_never_awaited_warns_without_debug(loop):
    async def forgotten():
        raise AssertionError

    async def main():
        forgotten()
        collect()

    with pytest.warns(RuntimeWarning, match="was never awaited") as caught:
        run(loop, main())
    assert "Coroutine created at" not in str(caught[0].message)


def test_origin_tracking_of_the_program_is_restored(debug_loop):
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(3)
    try:

        async def main():
            return sys.get_coroutine_origin_tracking_depth()

        during = run(debug_loop, main())
        after = sys.get_coroutine_origin_tracking_depth()
    finally:
        sys.set_coroutine_origin_tracking_depth(before)
    assert during > 3
    assert after == 3
