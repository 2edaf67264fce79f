"""loop.py, life cycle half: run_forever, run_until_complete, stop, close, and what breaks out."""

import asyncio
import sys
import threading

import pytest

from children import run_script
from helpers import LINUX, Background, collect, in_thread, run, run_turns

# ------------------------------------------------------------ stop


def test_stop_before_run_runs_one_turn(loop):
    seen = []
    loop.call_soon(seen.append, "first turn")
    loop.call_soon(lambda: loop.call_soon(seen.append, "second turn"))
    loop.stop()
    loop.run_forever()
    assert seen == ["first turn"]
    run_turns(loop)
    assert seen == ["first turn", "second turn"]


def test_stop_in_a_callback_finishes_the_turn(loop):
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "same turn")
    loop.call_soon(loop.call_soon, seen.append, "next turn")
    loop.run_forever()
    assert seen == ["same turn"]
    run_turns(loop)
    assert seen == ["same turn", "next turn"]


def test_stop_is_forgotten_when_the_run_ends(loop):
    loop.stop()
    loop.stop()
    loop.run_forever()
    seen = []
    # Were the stop remembered, this would end after one turn.
    loop.call_soon(loop.call_soon, loop.call_soon, seen.append, "third turn")
    loop.call_soon(loop.call_soon, loop.call_soon, loop.call_soon, loop.stop)
    loop.run_forever()
    assert seen == ["third turn"]


def test_stop_from_a_timer_ends_an_idle_loop(loop):
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert not loop.is_running()


def test_run_forever_ends_at_once_with_a_stop_and_pending_timer(loop):
    handle = loop.call_later(3600, print)
    loop.stop()
    loop.run_forever()
    handle.cancel()


def test_loop_can_run_many_times(loop):
    seen = []
    for number in range(50):
        loop.call_soon(seen.append, number)
        run_turns(loop)
    assert seen == list(range(50))


def test_callbacks_left_over_run_in_the_next_run(loop):
    seen = []

    async def main():
        loop.call_soon(seen.append, "left over")

    run(loop, main())
    run_turns(loop)
    assert seen == ["left over"]


# ------------------------------------------------------------ running state


def test_is_running_only_while_it_runs(loop):
    seen = []
    assert not loop.is_running()
    loop.call_soon(lambda: seen.append(loop.is_running()))
    run_turns(loop)
    assert seen == [True]
    assert not loop.is_running()


def test_run_forever_within_itself_is_refused(loop):
    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(loop.create_future())
        return "still fine"

    assert run(loop, main()) == "still fine"


@pytest.mark.veloop_only("3.13 forgets that it runs when run_forever is called within itself")
def test_refused_run_forever_leaves_the_running_loop_alone(loop):
    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        assert loop.is_running()
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        return "still fine"

    assert run(loop, main()) == "still fine"


def test_running_another_loop_within_a_running_one_is_refused(new_loop):
    outer, inner = new_loop(), new_loop()

    async def main():
        future = inner.create_future()
        with pytest.raises(RuntimeError, match="while another loop is running"):
            inner.run_until_complete(future)
        assert asyncio.get_running_loop() is outer

    run(outer, main())
    assert not inner.is_running()
    run_turns(inner)


def test_running_loop_refuses_a_second_thread(loop):
    async def main():
        return await loop.run_in_executor(None, attempt)

    def attempt():
        future = loop.create_future()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(future)
        return "refused"

    assert run(loop, main()) == "refused"


def test_loop_may_move_to_another_thread_between_runs(loop):
    idents = []
    for _ in range(2):
        loop.call_soon(lambda: idents.append(threading.get_ident()))
        in_thread(run_turns, loop)
        loop.call_soon(lambda: idents.append(threading.get_ident()))
        run_turns(loop)
    assert idents[1] == idents[3] == threading.get_ident()
    assert idents[0] != threading.get_ident()


# ------------------------------------------------------------ close


def test_close_is_idempotent(loop):
    assert not loop.is_closed()
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_loop_that_never_ran_closes(loop):
    loop.close()
    assert loop.is_closed()


def test_closing_a_running_loop_is_refused(loop):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        assert not loop.is_closed()
        await asyncio.sleep(0)
        return "still fine"

    assert run(loop, main()) == "still fine"


def test_closing_a_running_loop_from_another_thread_is_refused(loop):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            await loop.run_in_executor(None, loop.close)
        await asyncio.sleep(0)
        return "still fine"

    assert run(loop, main()) == "still fine"


def test_close_with_everything_pending(loop):
    # Neither close nor the collection afterwards may fail or report.
    loop.call_soon(print)
    loop.call_later(60, print)
    loop.call_soon_threadsafe(print)
    loop.create_future()
    loop.close()
    collect()


def test_handles_may_be_cancelled_after_close(loop):
    soon, later = loop.call_soon(print), loop.call_later(60, print)
    loop.close()
    soon.cancel()
    later.cancel()
    assert soon.cancelled()
    assert later.cancelled()


# ------------------------------------------------------------ run_until_complete


def test_result_of_a_coroutine_is_returned(loop):
    async def main():
        await asyncio.sleep(0)
        return 42

    assert run(loop, main()) == 42


def test_exception_of_a_coroutine_is_raised(loop):
    async def main():
        await asyncio.sleep(0)
        raise ValueError("from main")

    with pytest.raises(ValueError, match="from main"):
        run(loop, main())


def test_future_that_is_done_needs_one_turn(loop):
    future = loop.create_future()
    future.set_result("done before")
    assert run(loop, future) == "done before"


def test_cancelled_future_raises_cancelled_error(loop):
    future = loop.create_future()
    loop.call_soon(future.cancel)
    with pytest.raises(asyncio.CancelledError):
        run(loop, future)


def test_any_awaitable_will_do(loop):
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "awaited"

    assert run(loop, Awaitable()) == "awaited"


def test_future_of_another_loop_is_refused(new_loop):
    loop, other = new_loop(), new_loop()
    with pytest.raises(ValueError, match="different loop"):
        run(loop, other.create_future())
    assert run(loop, asyncio.sleep(0, "still fine")) == "still fine"


@pytest.mark.parametrize("thing", [None, 1, "text", print, object()], ids=repr)
def test_what_is_no_awaitable_is_refused(loop, thing):
    with pytest.raises(TypeError):
        run(loop, thing)


def test_stop_before_the_future_is_done_is_an_error(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        run(loop, future)
    # The future is as it was, the loop too.
    assert not future.done()
    loop.call_soon(future.set_result, 1)
    assert run(loop, future) == 1


def test_stop_in_the_turn_the_future_is_done_returns_the_result(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    loop.call_soon(future.set_result, "in time")
    try:
        result = run(loop, future)
    except RuntimeError:
        # Done, but its callback did not run: asyncio looks at the future only.
        pytest.fail("a future that is done has a result")
    assert result == "in time"


def test_unfinished_coroutine_of_a_stopped_run_can_be_finished(loop):
    tasks = []

    async def main():
        tasks.append(asyncio.current_task())
        loop.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "finished"

    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        run(loop, main())
    assert run(loop, tasks.pop()) == "finished"


def test_other_tasks_stay_alive_after_the_main_one(loop):
    seen = []

    async def other():
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0)
        return "other"

    async def main():
        task = loop.create_task(other())
        await asyncio.sleep(0)
        return task

    task = run(loop, main())
    assert not task.done()
    assert run(loop, task) == "other"
    assert seen == [0, 1, 2]


def test_main_task_carries_the_stock_done_callback(loop):
    # anyio finds the root task by this very function.
    async def main():
        callbacks = asyncio.current_task()._callbacks
        return [callback for callback, context in callbacks]

    assert asyncio.base_events._run_until_complete_cb in run(loop, main())


def test_done_callback_of_the_run_is_removed_afterwards(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        run(loop, future)
    assert not future._callbacks


def test_dropped_main_coroutine_is_not_called_pending(loop):
    # run_until_complete raised: "Task was destroyed but it is pending" would say it twice.
    async def main():
        loop.stop()
        await loop.create_future()

    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        run(loop, main())
    collect()
    assert asyncio.all_tasks(loop) == set()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, ValueError])
def test_exception_that_was_raised_is_not_called_unretrieved(loop, exception):
    async def main():
        raise exception

    with pytest.raises(exception):
        run(loop, main())
    # No further turn, in which a done callback would look at the result.
    loop.close()
    collect()


# ------------------------------------------------------------ BaseException


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_callback_leaves_the_loop_usable(loop, exception):
    seen = []

    def interrupt():
        raise exception("from callback")

    loop.call_soon(seen.append, "before")
    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "after")
    with pytest.raises(exception, match="from callback"):
        loop.run_forever()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert seen == ["before"]
    run_turns(loop)
    assert seen == ["before", "after"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_the_main_task_is_raised(loop, exception):
    async def main():
        await asyncio.sleep(0)
        raise exception("from main")

    with pytest.raises(exception, match="from main"):
        run(loop, main())
    assert run(loop, asyncio.sleep(0, "usable")) == "usable"


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_side_task_leaves_the_others_alive(loop, exception):
    async def side():
        raise exception("from side")

    async def main():
        for _ in range(5):
            await asyncio.sleep(0)
        return "main went on"

    main_task = loop.create_task(main())
    side_task = loop.create_task(side())
    with pytest.raises(exception, match="from side"):
        run(loop, main_task)
    assert run(loop, main_task) == "main went on"
    assert isinstance(side_task.exception(), exception)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_timer_loses_no_timer(loop, exception):
    seen = []

    def interrupt():
        raise exception

    now = loop.time()
    for number in range(10):
        if number == 4:
            loop.call_at(now - 10 + number, interrupt)
        else:
            loop.call_at(now - 10 + number, seen.append, number)
    with pytest.raises(exception):
        loop.run_forever()
    run_turns(loop, 2)
    assert seen == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_interrupt_in_the_exception_handler_breaks_out(loop):
    def handler(loop, context):
        raise KeyboardInterrupt("from handler")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    seen = []
    loop.call_soon(seen.append, "after")
    with pytest.raises(KeyboardInterrupt, match="from handler"):
        loop.run_forever()
    run_turns(loop)
    assert seen == ["after"]


def test_other_base_exceptions_in_a_callback_go_to_the_handler(loop, loop_errors):
    class Odd(BaseException):
        pass

    def callback():
        raise Odd

    loop.call_soon(callback)
    run_turns(loop)
    assert isinstance(loop_errors.take_one()["exception"], Odd)


def test_stop_and_interrupt_in_one_turn_do_not_stop_the_next_run(loop):
    def interrupt():
        raise KeyboardInterrupt

    loop.call_soon(loop.stop)
    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()

    async def main():
        for _ in range(3):
            await asyncio.sleep(0)
        return "ran on"

    assert run(loop, main()) == "ran on"


# ------------------------------------------------------------ process state


def test_async_generator_hooks_are_restored(loop):
    hooks = (lambda generator: None, lambda generator: None)
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(*hooks)
    try:

        async def main():
            return tuple(sys.get_asyncgen_hooks())

        inside = run(loop, main())
        after = tuple(sys.get_asyncgen_hooks())
    finally:
        sys.set_asyncgen_hooks(*before)
    assert inside != hooks
    assert after == hooks


def test_running_loop_slot_is_cleared_after_an_exception(loop):
    def interrupt():
        raise SystemExit

    loop.call_soon(interrupt)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert asyncio._get_running_loop() is None


def test_deep_chain_of_runs_in_threads(new_loop):
    # Each thread has a running loop of its own; none sees another's.
    def chain(depth):
        loop = new_loop()

        async def main():
            assert asyncio.get_running_loop() is loop
            below = []
            if depth:
                with Background(chain, depth - 1) as other:
                    below = other.result()
            assert asyncio.get_running_loop() is loop
            return [loop, *below]

        return run(loop, main())

    assert len(set(chain(4))) == 5


# ------------------------------------------------------------ what others do to its descriptors


@pytest.mark.skipif(not LINUX, reason="finds the descriptors by what Linux calls them")
@pytest.mark.parametrize("waits", ["for nothing", "a moment", "for ever"])
@pytest.mark.parametrize("which", ["its epoll", "every descriptor"])
def test_loop_whose_descriptors_were_closed(loop_kind, which, waits):
    # By a daemon, say, that closes whatever it may have inherited, with a loop already there.
    script = f"""
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        names = {{int(name): f"/proc/self/fd/{{name}}" for name in os.listdir("/proc/self/fd")}}
        names = {{fd: os.readlink(path) for fd, path in names.items() if os.path.exists(path)}}

        async def main():
            for fd, name in names.items():
                if fd > 2 and ("eventpoll" in name or {which!r} == "every descriptor"):
                    os.close(fd)
            if {waits!r} == "for ever":
                await loop.create_future()
            await asyncio.sleep(0.01)
            while {waits!r} == "for nothing":
                await asyncio.sleep(0)

        for _ in range(2):
            coro = main()
            try:
                loop.run_until_complete(coro)
            except OSError as exc:
                print(exc.errno)
            names.clear()
        try:
            loop.close()
        except OSError as exc:
            # Of a socket of Python's, or of its selector, from 3.15 on.
            assert exc.errno == 9
            assert {which!r} == "every descriptor" or {loop_kind!r} == "asyncio"
        run(asyncio.sleep(0.01))
        os._exit(0)  # the tasks are left as they are
    """
    assert run_script(loop_kind, script).stdout.splitlines() == ["9", "9"]
