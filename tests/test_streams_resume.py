"""stream_reader.py: a task that waits for data goes on inside of data_received, where it may."""

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from helpers import Background, import_veloop, new_event_loop, run, tcp_pair
from stream_helpers import Line, pending
from tcp_helpers import turns

AT_ONCE = pytest.mark.own_module_only("asyncio's resumes it in the next turn")


@pytest.fixture
def line(aio, loop):
    return Line(aio, loop)


class Reading:
    """A task that reads; `seen` has what it got."""

    def __init__(self, line, step=None):
        self.seen = []
        self.line = line
        self.step = step

    async def __call__(self):
        while data := await self.line.reader.read(100):
            self.seen.append(data)
            if self.step is not None:
                self.step(data)


async def finish(line, task):
    await line.end()
    await task


@AT_ONCE
def test_task_goes_on_before_data_received_returns(aio, loop, line):
    async def main():
        reading = Reading(line)
        task = await pending(loop, reading())

        def check():
            line.protocol.data_received(b"a")
            first = list(reading.seen)
            line.protocol.data_received(b"b")
            return first, list(reading.seen)

        assert await line._dispatch(check) == ([b"a"], [b"a", b"b"])
        await finish(line, task)

    run(loop, main())


def test_task_sees_itself_its_loop_and_its_context(aio, loop, line):
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen = []

    def step(data):
        seen.append((asyncio.current_task(), asyncio.get_running_loop(), variable.get()))
        variable.set(data)

    async def reading():
        variable.set("task's")
        await Reading(line, step)()

    async def main():
        task = await pending(loop, reading())
        for data in (b"a", b"b"):
            await line.deliver(data)
            await turns()
        assert seen == [(task, loop, "task's"), (task, loop, b"a")]
        assert variable.get() == "nobody's"
        await finish(line, task)

    run(loop, main())


def test_data_from_within_a_task_resumes_nobody_inside_of_it(aio, loop, line):
    async def main():
        reading = Reading(line)
        task = await pending(loop, reading())
        line.protocol.data_received(b"a")
        line.protocol.data_received(b"b")
        assert reading.seen == []
        await turns()
        assert b"".join(reading.seen) == b"ab"
        await finish(line, task)

    run(loop, main())


def test_feed_data_in_a_callback_resumes_nobody_inside_of_it(aio, loop, line):
    # Only the protocol knows that its caller expects a call of user code.
    async def main():
        reading = Reading(line)
        task = await pending(loop, reading())

        def feed():
            line.reader.feed_data(b"a")
            return list(reading.seen)

        assert await line._dispatch(feed) == []
        await turns()
        assert reading.seen == [b"a"]
        await finish(line, task)

    run(loop, main())


def test_data_while_the_loop_stands_still_resumes_nobody(aio, loop, line):
    reading = Reading(line)
    task = run(loop, pending(loop, reading()))
    line.protocol.data_received(b"a")
    assert reading.seen == []
    run(loop, turns())
    assert reading.seen == [b"a"]
    run(loop, finish(line, task))


def test_data_from_another_loops_thread_resumes_nobody_there(aio, loop, line, loop_kind):
    threads = []
    reading = Reading(line, lambda data: threads.append(threading.current_thread()))
    task = run(loop, pending(loop, reading()))

    async def elsewhere():
        asyncio.get_running_loop().call_soon(line.protocol.data_received, b"a")
        await turns()

    def other():
        another = new_event_loop(loop_kind)
        another.run_until_complete(elsewhere())
        another.close()

    with Background(other):
        pass
    run(loop, turns())
    assert threads == [threading.current_thread()]
    run(loop, finish(line, task))


def test_task_that_feeds_another_reader_does_not_run_inside_of_it(aio, loop, line):
    async def main():
        other = Line(aio, loop)
        order = []
        answering = Reading(other, lambda data: order.append("answer"))

        def step(data):
            other.protocol.data_received(data)
            order.append("step")

        tasks = [await pending(loop, Reading(line, step)()), await pending(loop, answering())]
        await line.deliver(b"a")
        await turns()
        assert order == ["step", "answer"]
        await finish(line, tasks[0])
        await finish(other, tasks[1])

    run(loop, main())


def test_task_may_close_and_end_inside(aio, loop, line):
    async def main():
        async def reading():
            assert await line.reader.read(10) == b"bye"
            line.wire.close()
            line.protocol.connection_lost(None)
            return "done"

        task = await pending(loop, reading())
        await line.deliver(b"bye")
        assert await task == "done"

    run(loop, main())


def test_exception_of_the_task_is_the_tasks(aio, loop, line):
    async def main():
        async def reading():
            await line.reader.read(10)
            raise LookupError("mine")

        task = await pending(loop, reading())
        await line.deliver(b"x")  # raises what data_received raises
        with pytest.raises(LookupError, match="mine"):
            await task

    run(loop, main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exception_that_ends_the_program_leaves_the_loop(aio, loop, line, kind):
    async def reading():
        await line.reader.read(10)
        raise kind("out")

    task = run(loop, pending(loop, reading()))
    line.deliver(b"x")
    with pytest.raises(kind, match="out"):
        run(loop, asyncio.sleep(3600))
    assert type(task.exception()) is kind
    # What else there was is there in the next run of the loop.
    (sleeping,) = asyncio.all_tasks(loop)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, sleeping)


def test_cancelled_task_is_not_resumed_with_data(aio, loop, line):
    async def main():
        reading = Reading(line)
        task = await pending(loop, reading())

        def cancel_and_deliver():
            task.cancel("enough")
            line.protocol.data_received(b"late")

        await line._dispatch(cancel_and_deliver)
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert reading.seen == []
        assert await line.reader.read(10) == b"late"

    run(loop, main())


def test_task_cancelled_by_what_it_does_inside_is_cancelled_at_its_next_wait(aio, loop, line):
    async def main():
        reading = Reading(line, lambda data: asyncio.current_task().cancel())
        task = await pending(loop, reading())
        await line.deliver(b"a")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reading.seen == [b"a"]
        line.reader.feed_data(b"b")
        assert await line.reader.read(10) == b"b"

    run(loop, main())


def test_timeout_around_a_read_that_was_resumed_before(aio, loop, line):
    async def main():
        async def reading():
            got = []
            for _ in range(2):
                got.append(await line.reader.read(10))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await line.reader.read(10)
            got.append(await line.reader.read(10))
            return got

        task = await pending(loop, reading())
        for data in (b"a", b"b"):
            await line.deliver(data)
            await turns(5)
        await line.deliver(b"c")
        assert await task == [b"a", b"b", b"c"]

    run(loop, main())


def test_task_of_another_class_is_resumed(aio, loop, line):
    class Other(asyncio.Task):
        pass

    async def main():
        for kind in (Other, asyncio.tasks._PyTask):
            reading = Reading(line)
            task = kind(reading(), loop=loop)
            await turns()
            for data in (b"a", b"b"):
                await line.deliver(data)
                await turns()
            assert reading.seen == [b"a", b"b"]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(loop, main())


def test_coroutine_that_is_no_task_gets_a_future(aio, loop, line):
    # As in a scheduler of one's own: it may look at the future, or wait for its callback.
    async def main():
        coro = line.reader.read(10)
        future = coro.send(None)
        assert asyncio.isfuture(future) and not future.done()
        called = []
        future.add_done_callback(called.append)
        await line.deliver(b"data")
        await turns()
        assert called == [future]
        assert future.done()
        with pytest.raises(StopIteration) as stopped:
            coro.send(None)
        assert stopped.value.value == b"data"

    run(loop, main())


@pytest.mark.parametrize("before", [0, 1, 3])
def test_future_that_others_watch_is_done_for_them_too(aio, loop, line, before):
    async def main():
        reading = Reading(line)
        task = await pending(loop, reading())
        for _ in range(before):
            await line.deliver(b"x")
            await turns()
        called = []
        line.reader._waiter.add_done_callback(lambda future: called.append(future.done()))
        await line.deliver(b"data")
        await turns()
        assert reading.seen == [b"x"] * before + [b"data"]
        assert called == [True]
        await finish(line, task)

    run(loop, main())


def test_tasks_that_take_turns_are_each_resumed_as_themselves(aio, loop, line):
    async def main():
        for number in range(6):
            seen = []

            async def reading(seen=seen):
                for _ in range(2):
                    seen.append((await line.reader.read(10), asyncio.current_task()))

            task = await pending(loop, reading())
            for _ in range(2):
                await line.deliver(b"%d" % number)
                await turns()
            await task
            assert seen == [(b"%d" % number, task)] * 2

    run(loop, main())


def test_task_that_reads_in_another_ones_place(aio, loop, line):
    async def main():
        first = await pending(loop, Reading(line)())
        await line.deliver(b"a")
        await turns()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = Reading(line)
        task = await pending(loop, second())
        await line.deliver(b"b")
        await turns()
        assert second.seen == [b"b"]
        await finish(line, task)

    run(loop, main())


def test_subclass_that_looks_at_the_data_sees_all_of_it(aio, loop):
    seen = []

    class Watching(aio.StreamReaderProtocol):
        def data_received(self, data):
            seen.append(data)
            super().data_received(data)

    async def main():
        with tcp_pair() as (client, server):
            reader = aio.StreamReader()
            transport, _ = await loop.create_connection(lambda: Watching(reader), sock=server.dup())
            for data in (b"one\n", b"two\n"):
                task = await pending(loop, reader.readline())
                client.sendall(data)
                assert await task == data
            transport.close()
            await turns()

    run(loop, main())
    assert seen == [b"one\n", b"two\n"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exception_that_ends_the_program_leaves_the_loop_from_a_connection(aio, loop, kind):
    async def reading(reader):
        await reader.readline()
        raise kind("out")

    with tcp_pair() as (client, server):

        async def main():
            streams = await aio.open_connection(sock=server.dup())
            return streams, await pending(loop, reading(streams[0]))

        (reader, writer), task = run(loop, main())
        client.sendall(b"line\n")
        with pytest.raises(kind, match="out"):
            run(loop, task)
        assert type(task.exception()) is kind
        # The connection does not know of it.
        client.sendall(b"more\n")
        assert run(loop, reader.readline()) == b"more\n"
        writer.close()
        run(loop, writer.wait_closed())


def test_data_delivered_in_the_tasks_own_context(aio, loop, line):
    # A context is entered once at a time, so the task has to wait for its turn.
    async def main():
        context = contextvars.copy_context()
        reading = Reading(line)
        task = loop.create_task(reading(), context=context)
        await turns()
        for data in (b"a", b"b"):
            loop.call_soon(line.protocol.data_received, data, context=context)
            await turns()
        assert reading.seen == [b"a", b"b"]
        await finish(line, task)

    run(loop, main())


@AT_ONCE
def test_future_is_used_again_as_long_as_it_was_never_done(aio, loop, line):
    async def main():
        task = await pending(loop, Reading(line)())
        first = line.reader._waiter
        await line.deliver(b"a")
        await turns()
        assert line.reader._waiter is first
        assert not hasattr(first, "_asyncio_awaited_by") or first._asyncio_awaited_by == {task}
        line.reader.feed_data(b"b")  # makes it done
        await turns()
        assert first.done()
        assert line.reader._waiter is not first
        await finish(line, task)

    run(loop, main())


def test_ended_task_is_not_kept_by_the_reader(aio, loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(1))
        await line.deliver(b"a")
        await task
        reference = weakref.ref(task)
        del task
        await turns()
        gc.collect()
        assert reference() is None

    run(loop, main())


def test_debug_mode_resumes_in_the_next_turn(aio, loop):
    async def main():
        line = Line(aio, loop)
        assert line.reader._source_traceback[-1].name == "__init__"  # of Line
        reading = Reading(line)
        task = await pending(loop, reading())

        def check():
            line.protocol.data_received(b"a")
            return list(reading.seen)

        assert await line._dispatch(check) == []
        await turns()
        assert reading.seen == [b"a"]
        await finish(line, task)

    loop.set_debug(True)
    run(loop, main())


def test_subclass_with_its_own_feed_data_is_asked(aio, loop):
    class Counting(aio.StreamReader):
        count = 0

        def feed_data(self, data):
            self.count += len(data)
            super().feed_data(data)

    async def main():
        reader = Counting(loop=loop)
        protocol = aio.StreamReaderProtocol(reader, loop=loop)
        task = await pending(loop, reader.read(10))
        loop.call_soon(protocol.data_received, b"data")
        assert await task == b"data"
        assert reader.count == 4

    run(loop, main())


def test_reader_that_nobody_has_any_more_gets_nothing(aio, loop):
    async def main():
        line = Line(aio, loop)
        protocol = line.protocol
        del line.reader
        protocol.data_received(b"data")
        assert protocol.eof_received() is True
        protocol.connection_lost(None)

    run(loop, main())


def test_reader_of_asyncios_on_our_protocol_and_the_other_way_round(aio, loop):
    veloop = import_veloop()

    async def main():
        for reader, protocol in (
            (asyncio.StreamReader(loop=loop), veloop.StreamReaderProtocol),
            (veloop.StreamReader(loop=loop), asyncio.StreamReaderProtocol),
        ):
            connected = protocol(reader, loop=loop)
            task = await pending(loop, reader.readline())
            loop.call_soon(connected.data_received, b"data\n")
            assert await task == b"data\n"

    run(loop, main())
