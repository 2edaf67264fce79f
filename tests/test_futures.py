"""futures.py: wrap_future() and the tie between futures of loops and of threads."""

import asyncio
import concurrent.futures
import logging
import sys
import threading

import pytest

from helpers import Background, collect, import_veloop, in_thread, new_event_loop, run, run_turns

ThreadFuture = concurrent.futures.Future
chain = import_veloop().futures._chain_future


@pytest.fixture
def thread_log(caplog):
    """What callbacks of concurrent.futures raised."""
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        yield caplog
    assert not [record for record in caplog.records if record.name == "concurrent.futures"]


def test_future_and_isfuture_are_asyncios():
    veloop = import_veloop()
    assert veloop.Future is asyncio.Future
    assert veloop.isfuture is asyncio.isfuture


# ------------------------------------------------------------ wrap_future: what it takes


def test_future_of_a_loop_is_returned_as_it_is(aio, loop):
    future = loop.create_future()
    assert aio.wrap_future(future) is future
    future.cancel()


def test_what_is_no_future_is_refused(aio, loop):
    with pytest.raises(AssertionError, match=r"concurrent\.futures\.Future is expected, got 42"):
        aio.wrap_future(42, loop=loop)


def test_loop_is_the_given_one(aio, loop):
    wrapper = aio.wrap_future(ThreadFuture(), loop=loop)
    assert wrapper.get_loop() is loop


def test_loop_is_the_running_one(aio, loop):
    async def main():
        return aio.wrap_future(ThreadFuture())

    assert run(loop, main()).get_loop() is loop


def test_loop_is_the_current_one(aio, loop):
    aio.set_event_loop(loop)
    assert aio.wrap_future(ThreadFuture()).get_loop() is loop
    aio.set_event_loop(None)
    with pytest.raises(RuntimeError, match="no current event loop"):
        aio.wrap_future(ThreadFuture())


# ------------------------------------------------------------ wrap_future: how it ends


def test_result_of_a_thread(aio, loop):
    source = ThreadFuture()

    async def main():
        wrapper = aio.wrap_future(source)
        with Background(source.set_result, 42):
            return await wrapper

    assert run(loop, main()) == 42


def test_exception_of_a_thread_is_the_same_object(aio, loop):
    source, error = ThreadFuture(), LookupError("in the thread")
    wrapper = aio.wrap_future(source, loop=loop)
    source.set_exception(error)
    with pytest.raises(LookupError) as caught:
        run(loop, wrapper)
    assert caught.value is error


@pytest.mark.module_since("3.13", "the traceback is lost, in 3.12.1 at least")
@pytest.mark.parametrize("name", ["CancelledError", "InvalidStateError"])
def test_exception_of_concurrent_futures_becomes_asyncios(aio, loop, name):
    source = ThreadFuture()
    wrapper = aio.wrap_future(source, loop=loop)

    def work():
        try:
            raise getattr(concurrent.futures, name)("no more")
        except Exception as exc:
            source.set_exception(exc)
            return exc.__traceback__

    traceback = work()
    run_turns(loop)
    exc = wrapper.exception()
    assert type(exc) is getattr(asyncio, name)
    assert exc.args == ("no more",)
    assert exc.__traceback__ is traceback


def test_source_that_has_ended_already(aio, loop):
    source = ThreadFuture()
    source.set_result("long ago")
    assert run(loop, aio.wrap_future(source, loop=loop)) == "long ago"


def test_cancelled_source_cancels(aio, loop):
    source = ThreadFuture()
    wrapper = aio.wrap_future(source, loop=loop)
    assert source.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, wrapper)


def test_cancelled_wrapper_cancels_the_source(aio, loop):
    source = ThreadFuture()
    wrapper = aio.wrap_future(source, loop=loop)
    wrapper.cancel()
    run_turns(loop)
    assert source.cancelled()


def test_cancelled_wrapper_lets_a_running_source_end(aio, loop, thread_log):
    source = ThreadFuture()
    wrapper = aio.wrap_future(source, loop=loop)
    source.set_running_or_notify_cancel()
    wrapper.cancel()
    run_turns(loop)
    source.set_result("too late")
    run_turns(loop)
    assert wrapper.cancelled()


def test_end_comes_in_the_loops_thread(aio, loop):
    source, threads = ThreadFuture(), []
    wrapper = aio.wrap_future(source, loop=loop)
    wrapper.add_done_callback(lambda _: threads.append(threading.current_thread()))
    in_thread(lambda: source.set_result(None))
    assert not wrapper.done()
    run(loop, wrapper)
    run_turns(loop)
    assert threads == [threading.current_thread()]


def test_end_after_the_loop_was_closed(aio, loop_kind, thread_log):
    loop = new_event_loop(loop_kind)
    source = ThreadFuture()
    wrapper = aio.wrap_future(source, loop=loop)
    loop.close()
    source.set_result("nobody waits")
    assert not wrapper.done()


# ------------------------------------------------------------ the tie, in every direction


@pytest.fixture(params=["thread", "loop"])
def make(request, loop):
    return ThreadFuture if request.param == "thread" else loop.create_future


@pytest.fixture(params=["thread", "loop"])
def make_source(request, loop):
    return ThreadFuture if request.param == "thread" else loop.create_future


def test_chain_result(loop, make_source, make):
    source, destination = make_source(), make()
    chain(source, destination)
    source.set_result(42)
    run_turns(loop, 3)
    assert destination.result() == 42


def test_chain_exception(loop, make_source, make):
    source, destination = make_source(), make()
    chain(source, destination)
    source.set_exception(LookupError("x"))
    run_turns(loop, 3)
    assert type(destination.exception()) is LookupError


def test_chain_cancels_onward(loop, make_source, make):
    source, destination = make_source(), make()
    chain(source, destination)
    source.cancel()
    run_turns(loop, 3)
    assert destination.cancelled()


def test_chain_cancels_back(loop, make_source, make):
    source, destination = make_source(), make()
    chain(source, destination)
    destination.cancel()
    run_turns(loop, 3)
    assert source.cancelled()


def test_chain_between_two_loops(new_loop):
    one, other = new_loop(), new_loop()
    source, destination = one.create_future(), other.create_future()
    chain(source, destination)
    one.call_soon(source.set_result, 42)
    run_turns(one, 2)
    assert not destination.done()
    assert run(other, destination) == 42


def test_cancelling_in_a_thread_wakes_the_loop_of_the_source(loop):
    source, destination = loop.create_future(), ThreadFuture()
    chain(source, destination)

    async def main():
        with Background(destination.cancel):
            await source

    with pytest.raises(asyncio.CancelledError):
        run(loop, main())


def test_cancelling_after_the_loop_of_the_source_was_closed(loop_kind, thread_log):
    loop = new_event_loop(loop_kind)
    source, destination = loop.create_future(), ThreadFuture()
    chain(source, destination)
    loop.close()
    destination.cancel()
    assert not source.done()


def test_loop_that_is_closed_meanwhile_is_forgiven(loop, thread_log):
    """Between the question whether it is closed and the call."""
    source, destination = ThreadFuture(), loop.create_future()
    chain(source, destination)
    answers = [False, True]
    loop.is_closed = lambda: answers.pop(0)

    def refuse(*args):
        raise RuntimeError("Event loop is closed")

    loop.call_soon_threadsafe = refuse
    source.set_result(42)
    del loop.is_closed, loop.call_soon_threadsafe
    assert answers == []
    assert not destination.done()


def test_other_error_of_the_loop_is_not_hidden(loop, caplog):
    source, destination = ThreadFuture(), loop.create_future()
    chain(source, destination)

    def refuse(*args):
        raise RuntimeError("another reason")

    loop.call_soon_threadsafe = refuse
    source.set_result(42)
    del loop.call_soon_threadsafe
    (record,) = caplog.records
    assert str(record.exc_info[1]) == "another reason"


@pytest.mark.parametrize("which", ["source", "destination"])
def test_chain_refuses_what_is_no_future(loop, which):
    ends = {"source": ThreadFuture(), "destination": ThreadFuture(), which: object()}
    with pytest.raises(TypeError, match=f"A future is required for {which} argument"):
        chain(**ends)


# ------------------------------------------------------------ awaited by

before_314 = pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio's own")


@before_314
def test_noted_waiters_can_be_taken_back(loop):
    veloop = import_veloop()
    future, one, other = (loop.create_future() for _ in range(3))
    for waiter in (one, other, one):
        veloop.future_add_to_awaited_by(future, waiter)
    assert set(veloop.futures.noted_waiters(future)) == {one, other}
    veloop.future_discard_from_awaited_by(future, one)
    assert veloop.futures.noted_waiters(future) == (other,)
    veloop.future_discard_from_awaited_by(one, future)  # never noted


@before_314
def test_notes_keep_nothing_alive(loop):
    veloop = import_veloop()
    future, waiter = loop.create_future(), loop.create_future()
    waiter.waits_for = future
    veloop.future_add_to_awaited_by(future, waiter)
    del future, waiter
    collect()
    assert len(veloop.futures._awaited_by) == 0


@before_314
def test_what_is_no_future_is_not_noted(loop):
    veloop = import_veloop()
    future = loop.create_future()
    for pair in ((future, object()), (object(), future)):
        veloop.future_add_to_awaited_by(*pair)
        veloop.future_discard_from_awaited_by(*pair)
    assert veloop.futures.noted_waiters(future) == ()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio has none")
def test_notes_are_asyncios():
    veloop = import_veloop()
    for name in ("future_add_to_awaited_by", "future_discard_from_awaited_by"):
        assert getattr(veloop, name) is getattr(asyncio, name)
