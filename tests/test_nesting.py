"""Nested running: what nest_asyncio patches into asyncio's loop, and ours has when asked."""

import asyncio
import contextvars
import dis
import sys

import pytest

from helpers import PYPY, RecordingProtocol, run, socket_pair

pytestmark = pytest.mark.veloop_only("asyncio's loops cannot run nested")


@pytest.fixture
def nesting(loop):
    loop.set_nesting(True)
    return loop


async def value(of, turns=3):
    for _ in range(turns):
        await asyncio.sleep(0)
    return of


def test_nesting_is_off_by_default_and_can_be_switched(loop):
    async def main():
        coroutine = value(1)
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(coroutine)
        coroutine.close()

    assert loop.get_nesting() is False
    run(loop, main())
    loop.set_nesting(True)
    assert loop.get_nesting() is True


def test_synchronous_code_in_a_task_waits_for_a_coroutine(nesting):
    async def main():
        before = asyncio.current_task()
        assert nesting.run_until_complete(value("inner")) == "inner"
        assert asyncio.current_task() is before
        return await value("outer")

    assert run(nesting, main()) == "outer"


def test_runs_nest_many_levels_deep(nesting):
    async def level(depth):
        await asyncio.sleep(0)
        return depth if depth == 0 else 1 + nesting.run_until_complete(level(depth - 1))

    assert run(nesting, level(20)) == 20


def test_others_go_on_in_a_nested_run(nesting):
    seen = []

    async def other():
        for number in range(5):
            seen.append(number)
            await asyncio.sleep(0)

    async def main():
        task = asyncio.ensure_future(other())
        nesting.run_until_complete(asyncio.sleep(0.01))
        assert task.done()

    run(nesting, main())
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("debug", [False, True])
def test_callbacks_that_were_ready_run_once(nesting, debug):
    nesting.set_debug(debug)
    seen = []

    async def main():
        for number in range(5):
            nesting.call_soon(seen.append, number)
        await asyncio.sleep(0)

    async def nest():
        nesting.run_until_complete(value(None))

    async def both():
        await asyncio.gather(nest(), main(), nest())

    run(nesting, both())
    assert seen == [0, 1, 2, 3, 4]


def test_exception_and_cancellation_come_out_of_a_nested_run(nesting):
    async def fail():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def cancelled():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def main():
        with pytest.raises(ZeroDivisionError):
            nesting.run_until_complete(fail())
        with pytest.raises(asyncio.CancelledError):
            nesting.run_until_complete(cancelled())

    run(nesting, main())


def test_stop_in_a_nested_run_stops_the_run_outside_after_it(nesting):
    async def main():
        nesting.call_soon(nesting.stop)
        assert nesting.run_until_complete(value(1, turns=10)) == 1
        return 2

    task = nesting.create_task(main())
    nesting.run_forever()
    assert task.result() == 2


def test_outer_future_that_is_done_in_a_nested_run_ends_the_outer_run(nesting):
    outer = nesting.create_future()

    async def main():
        outer.set_result("outer")
        return nesting.run_until_complete(value("inner", turns=10))

    task = nesting.create_task(main())
    assert run(nesting, outer) == "outer"
    assert run(nesting, task) == "inner"


def test_connection_is_served_in_a_nested_run(nesting):
    async def main():
        with socket_pair() as (left, right):
            protocol = RecordingProtocol(nesting)
            transport, _ = await nesting.connect_accepted_socket(lambda: protocol, left)
            right.send(b"hello")
            assert nesting.run_until_complete(protocol.received(5)) == b"hello"
            transport.close()
            await protocol.lost

    run(nesting, main())


def test_task_that_reads_from_a_stream_can_nest(nesting, aio):
    async def serve(reader, writer):
        line = await reader.readline()  # what it waits for comes from a transport's callback
        writer.write(nesting.run_until_complete(value(line.upper())))
        writer.close()

    async def main():
        server = await aio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        await value(None)
        writer.write(b"hello\n")
        answer = nesting.run_until_complete(reader.read())
        writer.close()
        server.close()
        await server.wait_closed()
        return answer

    assert run(nesting, main()) == b"HELLO\n"


def test_run_outside_of_a_task_cannot_be_nested(nesting):
    errors = []

    def callback():
        coroutine = value(1)
        try:
            nesting.run_until_complete(coroutine)
        except RuntimeError as exc:
            errors.append(str(exc))
        coroutine.close()
        nesting.stop()

    nesting.call_soon(callback)
    nesting.run_forever()
    assert "inside of a task" in errors[0]


def test_task_cannot_wait_for_itself(nesting):
    async def main():
        with pytest.raises(RuntimeError, match="itself"):
            nesting.run_until_complete(asyncio.current_task())

    run(nesting, main())


def test_interrupt_in_a_nested_run_leaves_the_loop_usable(nesting):
    def interrupt():
        raise KeyboardInterrupt

    async def main():
        nesting.call_soon(interrupt)
        nesting.run_until_complete(asyncio.sleep(60))

    with pytest.raises(KeyboardInterrupt):
        run(nesting, main())
    for task in asyncio.all_tasks(nesting):
        task.cancel()
    assert run(nesting, value(3)) == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("debug", [False, True])
def test_task_started_eagerly_by_a_protocol_cannot_nest(nesting, debug):
    # The protocol's context is entered: its next callback could not be called.
    nesting.set_debug(debug)
    nesting.set_task_factory(asyncio.eager_task_factory)
    errors = []
    tasks = []

    async def nest():
        coroutine = value(1)
        try:
            nesting.run_until_complete(coroutine)
        except RuntimeError as exc:
            errors.append(str(exc))
        coroutine.close()

    class Protocol(RecordingProtocol):
        def data_received(self, data):
            tasks.append(asyncio.ensure_future(nest()))
            super().data_received(data)

    async def main():
        with socket_pair() as (left, right):
            protocol = Protocol(nesting)
            transport, _ = await nesting.connect_accepted_socket(lambda: protocol, left)
            right.send(b"one")
            await protocol.received(3)
            right.send(b"two")
            assert await protocol.received(6) == b"onetwo"
            transport.close()
            await protocol.lost

    run(nesting, main())
    assert len(errors) == 2
    assert "eagerly" in errors[0]


@pytest.mark.parametrize("debug", [False, True])
def test_run_is_nested_in_a_turn_with_connections_and_timers(nesting, debug):
    nesting.set_debug(debug)

    async def main():
        with socket_pair() as (left, right):
            protocol = RecordingProtocol(nesting)
            transport, _ = await nesting.connect_accepted_socket(lambda: protocol, left)
            for _ in range(20):
                right.send(b"x")
                nesting.call_later(0, int)
                nesting.run_until_complete(asyncio.sleep(0.0005))
            assert await protocol.received(20) == b"x" * 20
            transport.close()
            await protocol.lost

    run(nesting, main())


@pytest.mark.parametrize("debug", [False, True])
def test_task_with_the_context_of_a_suspended_one_goes_on_after_it(nesting, debug):
    nesting.set_debug(debug)
    context = contextvars.copy_context()

    async def main():
        async def nest():
            await asyncio.sleep(0)
            return nesting.run_until_complete(value("nested", turns=10))

        other = nesting.create_task(value("other", turns=5), context=context)
        task = nesting.create_task(nest(), context=context)
        assert await task == "nested"
        assert await other == "other"

    run(nesting, main())


@pytest.mark.skipif(PYPY, reason="its bytecode tells it in another way")
def test_interrupt_between_two_turns_of_a_nested_run_is_inside_of_its_try():
    # Ctrl-C comes where Python jumps back, and 3.14 leaves some jumps of a `try` unprotected.
    from veloop.loop import nesting

    code = dis.Bytecode(nesting.run_until_complete)
    jumps = [step.offset for step in code if step.opname == "JUMP_BACKWARD"]
    assert jumps
    for jump in jumps:
        assert any(entry.start <= jump < entry.end for entry in code.exception_entries)
