"""debug.py, second half: the exception handler, custom and default."""

import asyncio
import contextvars
import signal
import sys
import traceback

import pytest

from helpers import WINDOWS, run, run_turns, socket_pair

var = contextvars.ContextVar("var", default="unset")


def fail():
    raise ValueError("planned")


# ------------------------------------------------------------ setting it


def test_there_is_no_handler_by_default(loop):
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


def test_handler_can_be_set_and_taken_back(loop):
    def handler(loop, context):
        raise AssertionError

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("thing", [1, "text", object()], ids=["int", "str", "object"])
def test_handler_that_cannot_be_called_is_refused(loop, thing):
    before = loop.get_exception_handler()
    with pytest.raises(TypeError, match="callable object or None is expected"):
        loop.set_exception_handler(thing)
    assert loop.get_exception_handler() is before


# ------------------------------------------------------------ a custom handler


@pytest.fixture
def calls(loop):
    """Calls of the loop's exception handler, as (loop, context)."""
    made = []
    loop.set_exception_handler(lambda *args: made.append(args))
    return made


def test_exception_in_a_callback_reaches_the_handler(loop, calls):
    handle = loop.call_soon(fail)
    run_turns(loop)
    [(got_loop, context)] = calls
    assert got_loop is loop
    assert isinstance(context["exception"], ValueError)
    assert context["message"].startswith("Exception in callback ")
    assert "fail" in context["message"]
    assert context["handle"] is handle


def test_exception_in_a_timer_reaches_the_handler(loop, calls):
    handle = loop.call_at(loop.time(), fail)
    run_turns(loop, 2)
    [(_, context)] = calls
    assert context["handle"] is handle


def test_exception_in_a_done_callback_reaches_the_handler(loop, calls):
    future = loop.create_future()
    future.add_done_callback(lambda _: fail())
    future.set_result(1)
    run_turns(loop)
    [(_, context)] = calls
    assert str(context["exception"]) == "planned"


def test_traceback_begins_at_the_callback(loop, calls):
    loop.call_soon(fail)
    run_turns(loop)
    [(_, context)] = calls
    frames = traceback.extract_tb(context["exception"].__traceback__)
    assert frames[-1].name == "fail"


def test_loop_goes_on_after_an_exception(loop, calls):
    seen = []
    loop.call_soon(fail)
    loop.call_soon(seen.append, "same turn")
    loop.call_soon(loop.call_soon, seen.append, "next turn")
    run_turns(loop, 2)
    assert seen == ["same turn", "next turn"]
    assert len(calls) == 1


def test_handler_may_be_called_by_hand_with_any_context(loop, calls):
    context = {"message": "by hand", "anything": object()}
    assert loop.call_exception_handler(context) is None
    [(_, got)] = calls
    assert got is context


def test_handler_may_defer_to_the_default(loop, asyncio_log):
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_soon(fail)
    run_turns(loop)
    record = asyncio_log.take_one()
    assert "Exception in callback" in record.getMessage()


def test_handler_may_stop_the_loop(loop):
    loop.set_exception_handler(lambda loop, context: loop.stop())
    loop.call_soon(fail)
    loop.run_forever()


def test_handler_that_raises_is_reported_with_the_first_error(loop, asyncio_log):
    def handler(loop, context):
        raise KeyError("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    run_turns(loop)
    record = asyncio_log.take_one()
    assert "Unhandled error in exception handler" in record.getMessage()
    assert "planned" in record.getMessage()
    assert record.exc_info[0] is KeyError


@pytest.mark.stock_since("3.12", "3.11 calls the handler in the context of whoever reports")
def test_handler_runs_in_the_context_of_the_handle(loop):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, "of the handle")
    loop.call_soon(fail, context=context)
    run_turns(loop)
    assert seen == ["of the handle"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Task.get_context is new in 3.12")
@pytest.mark.parametrize("key", ["task", "future"])
def test_handler_runs_in_the_context_of_the_task(loop, key):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, "of the task")
    task = loop.create_task(asyncio.sleep(0), context=context)
    loop.call_exception_handler({"message": "by hand", key: task})
    run(loop, task)
    assert seen == ["of the task"]


def test_handler_runs_in_the_context_of_the_caller_otherwise(loop):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(var.get()))
    token = var.set("of the caller")
    loop.call_exception_handler({"message": "by hand", "future": loop.create_future()})
    loop.call_exception_handler({"message": "by hand"})
    var.reset(token)
    assert seen == ["of the caller"] * 2


# ------------------------------------------------------------ the default handler


@pytest.fixture
def default_loop(loop):
    loop.set_exception_handler(None)
    return loop


def test_default_handler_logs_the_exception(default_loop, asyncio_log):
    default_loop.call_soon(fail)
    run_turns(default_loop)
    record = asyncio_log.take_one()
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("Exception in callback ")
    assert "handle: <Handle" in record.getMessage()
    assert record.exc_info[0] is ValueError
    assert traceback.extract_tb(record.exc_info[2])[-1].name == "fail"


def test_default_handler_lists_the_context_in_order(default_loop, asyncio_log):
    default_loop.call_exception_handler({"message": "by hand", "b": 2, "a": "one"})
    record = asyncio_log.take_one()
    assert record.getMessage() == "by hand\na: 'one'\nb: 2"
    assert not record.exc_info


def test_default_handler_without_a_message(default_loop, asyncio_log):
    default_loop.call_exception_handler({})
    record = asyncio_log.take_one()
    assert record.getMessage() == "Unhandled exception in event loop"


def test_default_handler_tells_the_origin_in_debug_mode(default_loop, asyncio_log):
    default_loop.set_debug(True)
    default_loop.call_soon(fail)
    run_turns(default_loop)
    message = asyncio_log.take_one().getMessage()
    assert "Object created at (most recent call last):" in message
    assert __file__ in message


def test_default_handler_tells_the_origin_of_a_reader(default_loop, asyncio_log):
    default_loop.set_debug(True)

    def reader():
        default_loop.remove_reader(left)
        default_loop.stop()
        fail()

    with socket_pair() as (left, right):
        default_loop.add_reader(left, reader)
        right.send(b"x")
        default_loop.run_forever()
    message = asyncio_log.take_one().getMessage()
    assert "Object created at (most recent call last):" in message
    assert __file__ in message


@pytest.mark.skipif(WINDOWS, reason="Windows has no such signals")
def test_default_handler_tells_the_origin_of_a_signal_handler(default_loop, asyncio_log):
    default_loop.set_debug(True)

    def caught():
        default_loop.stop()
        fail()

    default_loop.add_signal_handler(signal.SIGUSR1, caught)
    signal.raise_signal(signal.SIGUSR1)
    default_loop.run_forever()
    default_loop.remove_signal_handler(signal.SIGUSR1)
    message = asyncio_log.take_one().getMessage()
    assert "Object created at (most recent call last):" in message
    assert __file__ in message


def test_default_handler_tells_the_current_handle_in_debug_mode(default_loop, asyncio_log):
    default_loop.set_debug(True)
    default_loop.call_soon(default_loop.call_exception_handler, {"message": "by hand"})
    run_turns(default_loop)
    message = asyncio_log.take_one().getMessage()
    assert "Handle created at (most recent call last):" in message
    assert __file__ in message


def test_default_handler_that_was_replaced_is_used(default_loop, monkeypatch):
    seen = []
    monkeypatch.setattr(default_loop, "default_exception_handler", seen.append)
    context = {"message": "by hand"}
    default_loop.call_exception_handler(context)
    assert seen == [context]


def test_default_handler_that_raises_is_logged(default_loop, monkeypatch, asyncio_log):
    def broken(context):
        raise KeyError("in the default handler")

    monkeypatch.setattr(default_loop, "default_exception_handler", broken)
    default_loop.call_exception_handler({"message": "by hand"})
    record = asyncio_log.take_one()
    assert record.getMessage() == "Exception in default exception handler"
    assert record.exc_info[0] is KeyError


def test_both_handlers_raising_is_logged(loop, monkeypatch, asyncio_log):
    def broken(*args):
        raise KeyError

    loop.set_exception_handler(broken)
    monkeypatch.setattr(loop, "default_exception_handler", broken)
    loop.call_exception_handler({"message": "by hand"})
    record = asyncio_log.take_one()
    assert "while handling an unexpected error in custom exception handler" in record.getMessage()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_handler_is_not_swallowed(loop, monkeypatch, exception):
    def broken(*args):
        raise exception

    loop.set_exception_handler(broken)
    with pytest.raises(exception):
        loop.call_exception_handler({"message": "by hand"})
    loop.set_exception_handler(None)
    monkeypatch.setattr(loop, "default_exception_handler", broken)
    with pytest.raises(exception):
        loop.call_exception_handler({"message": "by hand"})


def test_exception_after_close_can_still_be_reported(default_loop, asyncio_log):
    default_loop.close()
    default_loop.call_exception_handler({"message": "late"})
    assert asyncio_log.take_one().getMessage() == "late"
