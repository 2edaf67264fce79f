"""streams.py: the writer and its flow control, on a transport that only writes down its calls."""

import asyncio

import pytest

from helpers import drop_unreferenced, import_veloop, run
from stream_helpers import Line, Wire, pending
from tcp_helpers import turns


def writer_of(aio, loop, line, **kwargs):
    return aio.StreamWriter(line.wire, line.protocol, line.reader, loop, **kwargs)


@pytest.fixture
def line(aio, loop):
    return Line(aio, loop)


@pytest.fixture
def writer(aio, loop, line):
    writer = writer_of(aio, loop, line)
    yield writer
    line.wire.closing = True  # no warning that it is unclosed


def test_calls_go_to_the_transport(line, writer):
    writer.write(b"a")
    writer.writelines([b"b", b"c"])
    assert writer.can_write_eof()
    writer.write_eof()
    assert not writer.is_closing()
    writer.close()
    assert writer.is_closing()
    assert line.wire.written == b"abc"
    assert line.wire.calls == ["write", "writelines", "write_eof", "close"]
    assert writer.transport is line.wire


def test_extra_info_is_the_transports(aio, loop, writer):
    writer.transport._extra = {"name": "value"}
    assert writer.get_extra_info("name") == "value"
    assert writer.get_extra_info("other") is None
    assert writer.get_extra_info("other", 5) == 5


def test_repr_names_transport_and_reader(aio, loop, line, writer):
    assert repr(writer) == f"<StreamWriter transport={line.wire!r} reader={line.reader!r}>"
    alone = aio.StreamWriter(line.wire, line.protocol, None, loop)
    line.wire.closing = True
    assert repr(alone) == f"<StreamWriter transport={line.wire!r}>"


def test_reader_must_be_one(aio, loop, line):
    line.wire.closing = True
    with pytest.raises(AssertionError):
        aio.StreamWriter(line.wire, line.protocol, object(), loop)


def test_writer_is_asyncios_to_who_asks(writer):
    assert isinstance(writer, asyncio.StreamWriter)


def test_another_transport_gets_what_is_written_next(aio, loop, line, writer):
    writer.write(b"a")
    other = Wire()
    writer._transport = other
    writer.write(b"b")
    assert (line.wire.written, other.written) == (b"a", b"b")
    assert writer.transport is writer._transport is other
    other.closing = True


def test_write_of_a_subclass_is_called(aio, loop, line):
    class Shouting(aio.StreamWriter):
        def write(self, data):
            super().write(data.upper())

    writer = Shouting(line.wire, line.protocol, line.reader, loop)
    writer.write(b"a")
    assert line.wire.written == b"A"
    line.wire.closing = True


# ------------------------------------------------------------ drain


def drained(coro):
    """Whether drain() is done without waiting."""
    try:
        coro.send(None)
    except StopIteration:
        return True
    coro.close()
    return False


def test_drain_of_a_transport_that_is_not_full_awaits_nothing(writer):
    assert drained(writer.drain())


def test_drain_can_be_a_task(loop, writer):
    async def main():
        assert asyncio.iscoroutine(coro := writer.drain())
        await asyncio.gather(coro, asyncio.wait_for(writer.drain(), 10))
        await asyncio.create_task(writer.drain())

    run(loop, main())


def test_drain_waits_until_the_transport_takes_more(loop, line, writer):
    async def main():
        line.protocol.pause_writing()
        tasks = [await pending(loop, writer.drain()) for _ in range(3)]
        tasks[1].cancel()
        line.protocol.resume_writing()
        await tasks[0]
        await tasks[2]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert drained(writer.drain())

    run(loop, main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_pausing_twice_is_refused(line, method):
    if method == "pause_writing":
        line.protocol.pause_writing()
    with pytest.raises(AssertionError):
        getattr(line.protocol, method)()


def test_drain_that_waits_hears_of_the_lost_connection(loop, line, writer):
    async def main():
        line.protocol.pause_writing()
        tasks = [await pending(loop, writer.drain()) for _ in range(2)]
        line.protocol.connection_lost(BrokenPipeError("broken"))
        for task in tasks:
            with pytest.raises(BrokenPipeError, match="broken"):
                await task
        with pytest.raises(BrokenPipeError, match="broken"):
            await writer.drain()

    run(loop, main())


def test_drain_that_waits_returns_when_the_connection_is_closed(loop, line, writer):
    async def main():
        line.protocol.pause_writing()
        task = await pending(loop, writer.drain())
        line.protocol.connection_lost(None)
        await task
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()

    run(loop, main())


def test_drain_raises_the_readers_exception(loop, line, writer):
    error = LookupError("reader's")
    line.reader.set_exception(error)
    with pytest.raises(LookupError) as caught:
        run(loop, writer.drain())
    assert caught.value is error


def test_drain_without_a_reader(aio, loop, line):
    writer = aio.StreamWriter(line.wire, line.protocol, None, loop)
    assert drained(writer.drain())
    line.wire.closing = True


def test_drain_of_a_closing_transport_lets_the_loop_go_on(loop, line, writer):
    line.wire.closing = True
    assert not drained(writer.drain())

    async def main():
        loop.call_soon(line.protocol.connection_lost, None)
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()

    run(loop, main())


def test_protocol_with_its_own_helper_is_asked(aio, loop, line):
    asked = []

    class Own(asyncio.Protocol):
        async def _drain_helper(self):
            asked.append(1)

    class Derived(aio.StreamReaderProtocol):
        async def _drain_helper(self):
            asked.append(2)
            await super()._drain_helper()

    protocols = Own(), Derived(line.reader, loop=loop)
    writers = [aio.StreamWriter(line.wire, each, line.reader, loop) for each in protocols]
    for writer in writers:
        run(loop, writer.drain())
    assert asked == [1, 2]
    line.wire.closing = True


def test_flow_control_is_there_for_other_protocols(loop):
    from veloop.streams import FlowControlMixin

    class Own(FlowControlMixin):
        pass

    async def main():
        protocol = Own()
        assert protocol._loop is loop
        writer = import_veloop().StreamWriter(wire := Wire(), protocol, None, loop)
        protocol.pause_writing()
        task = await pending(loop, writer.drain())
        protocol.resume_writing()
        await task
        with pytest.raises(NotImplementedError):
            await writer.wait_closed()
        wire.closing = True

    run(loop, main())


def test_pauses_are_logged_in_debug_mode(aio, loop, line, caplog):
    loop.set_debug(True)
    with caplog.at_level("DEBUG", "asyncio"):
        line.protocol.pause_writing()
        line.protocol.resume_writing()
    assert caplog.messages == [
        f"{line.protocol!r} pauses writing",
        f"{line.protocol!r} resumes writing",
    ]


# ------------------------------------------------------------ the protocol


def test_end_of_stream_keeps_the_transport_open_but_over_tls(aio, loop, line):
    assert line.protocol.eof_received() is True
    protocol = aio.StreamReaderProtocol(aio.StreamReader(loop=loop), loop=loop)
    protocol.connection_made(Wire({"sslcontext": object()}))
    assert protocol.eof_received() is False


def test_lost_connection_is_the_readers_end(loop, line):
    line.reader.feed_data(b"rest")
    line.protocol.connection_lost(None)
    assert run(loop, line.reader.read()) == b"rest"
    assert line.reader.at_eof()


def test_protocol_without_a_reader(aio, loop):
    protocol = aio.StreamReaderProtocol(None, loop=loop)
    protocol.connection_made(Wire())
    protocol.data_received(b"data")
    assert protocol.eof_received() is True
    protocol.connection_lost(None)


def test_asyncios_writer_on_our_streams_and_the_other_way_round(loop):
    veloop = import_veloop()

    async def main():
        for one, other in ((asyncio, veloop), (veloop, asyncio)):
            line = Line(one, loop)
            writer = other.StreamWriter(line.wire, line.protocol, line.reader, loop)
            writer.write(b"data")
            await writer.drain()
            line.protocol.pause_writing()
            task = await pending(loop, writer.drain())
            line.protocol.resume_writing()
            await task
            writer.close()
            task = await pending(loop, writer.wait_closed())
            line.protocol.connection_lost(None)
            await task
            assert line.wire.written == b"data"

    run(loop, main())


def test_start_tls_replaces_the_transport_of_either_protocol(loop):
    veloop = import_veloop()
    below = []

    async def start_tls(transport, protocol, context, **kwargs):
        below.append((transport, kwargs["server_side"]))
        return Wire({"sslcontext": context})

    async def main():
        for one, other in ((asyncio, veloop), (veloop, asyncio), (veloop, veloop)):
            line = Line(one, loop)
            writer = other.StreamWriter(line.wire, line.protocol, line.reader, loop)
            loop.start_tls, original = start_tls, loop.start_tls
            try:
                await writer.start_tls(object())
            finally:
                loop.start_tls = original
            assert below.pop() == (line.wire, False)
            assert writer.transport is line.protocol._transport is not line.wire
            assert line.protocol.eof_received() is False
            writer.write(b"data")
            assert (line.wire.written, writer.transport.written) == (b"", b"data")
            writer.transport.closing = line.wire.closing = True

    run(loop, main())


def test_writer_of_a_closed_loop_only_warns(aio, new_loop):
    loop = new_loop()
    line = Line(aio, loop)
    writer = writer_of(aio, loop, line)
    loop.close()
    with pytest.warns(ResourceWarning, match="loop is closed"):
        del writer
        drop_unreferenced()
    assert line.wire.calls == []


def test_turns_of_a_drain_in_a_loop(loop, line, writer):
    # write() and drain() without back-pressure never leave the task.
    async def main():
        other = asyncio.create_task(turns(1))
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
        assert not other.done()
        await other

    run(loop, main())
