"""stream.py, flow control: the write buffer, its limits, and protocols that fail at it."""

import asyncio

import pytest

from helpers import RecordingProtocol, drain
from tcp_helpers import (
    MUCH,
    WAYS,
    Refilled,
    in_executor,
    pattern,
    read_all,
    run,
    turns,
    until,
    wired,
)


def test_buffer_size_is_what_the_kernel_did_not_take(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            assert transport.get_write_buffer_size() == 0
            transport.write(b"small")
            assert transport.get_write_buffer_size() == 0
            transport.write(bytes(MUCH))
            size = transport.get_write_buffer_size()
            assert 0 < size < MUCH
            transport.write(b"x" * 1000)
            assert transport.get_write_buffer_size() == size + 1000
            transport.writelines([b"y" * 500] * 2)
            assert transport.get_write_buffer_size() == size + 2000
            await in_executor(drain, peer, 5 + MUCH + 2000)
            await until(lambda: transport.get_write_buffer_size() == 0)

    run(loop, main())


def test_buffer_size_goes_down_as_the_peer_reads(loop):
    async def main():
        async with wired(loop) as (transport, _, peer):
            transport.write(bytes(MUCH))
            size = transport.get_write_buffer_size()
            await in_executor(drain, peer, MUCH // 2)
            await until(lambda: transport.get_write_buffer_size() < size)
            await in_executor(drain, peer, MUCH // 2)
            await until(lambda: transport.get_write_buffer_size() == 0)

    run(loop, main())


@pytest.mark.parametrize("way", WAYS)
def test_protocol_is_paused_and_resumed(loop, way):
    async def main():
        async with wired(loop, way=way) as (transport, protocol, peer):
            transport.write(bytes(MUCH))
            # At once, within write().
            assert protocol.names[-1] == "pause_writing"
            transport.write(bytes(MUCH))
            assert protocol.names.count("pause_writing") == 1
            await in_executor(drain, peer, 2 * MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")
            assert protocol.names == ["connection_made", "pause_writing", "resume_writing"]

    run(loop, main())


def test_protocol_is_resumed_at_the_low_water_mark(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=2 << 20, low=1 << 20)
            transport.write(bytes(MUCH))
            assert protocol.names[-1] == "pause_writing"
            sizes = []
            protocol.resume_writing = lambda: sizes.append(transport.get_write_buffer_size())
            await in_executor(drain, peer, MUCH)
            await until(lambda: sizes)
            assert sizes[0] <= 1 << 20

    run(loop, main())


def test_limits_have_asyncios_defaults_and_rules(loop):
    async def main():
        async with wired(loop) as (transport, _, _):
            limits = transport.get_write_buffer_limits
            assert limits() == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(high=1000)
            assert limits() == (250, 1000)
            transport.set_write_buffer_limits(low=1000)
            assert limits() == (1000, 4000)
            transport.set_write_buffer_limits(high=10, low=10)
            assert limits() == (10, 10)
            transport.set_write_buffer_limits(high=0)
            assert limits() == (0, 0)
            transport.set_write_buffer_limits()
            assert limits() == (16 * 1024, 64 * 1024)

    run(loop, main())


@pytest.mark.parametrize(
    ("high", "low"), [(10, 11), (-1, None), (None, -1), (0, 1), (5, -5)], ids=str
)
def test_impossible_limits_are_refused(loop, high, low):
    async def main():
        async with wired(loop) as (transport, _, _):
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\)") as caught:
                transport.set_write_buffer_limits(high=high, low=low)
            for value in (high, low):
                assert value is None or f"({value})" in str(caught.value)
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)

    run(loop, main())


def test_lowering_the_limit_below_what_is_buffered_pauses(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=1 << 30)
            transport.write(bytes(MUCH))
            assert "pause_writing" not in protocol.names
            transport.set_write_buffer_limits(high=1000)
            assert protocol.names[-1] == "pause_writing"
            await in_executor(drain, peer, MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


def test_limit_zero_pauses_whenever_something_is_buffered(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            transport.write(b"goes out at once")
            assert "pause_writing" not in protocol.names
            transport.write(bytes(MUCH))
            assert "pause_writing" in protocol.names
            await in_executor(drain, peer, 16 + MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


@pytest.mark.stock_since("3.14.0", "writelines did not pause the protocol")
def test_writelines_pauses_too(loop):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            transport.writelines([bytes(MUCH // 2)] * 2)
            assert protocol.names[-1] == "pause_writing"
            await in_executor(drain, peer, MUCH)
            await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


def test_writing_more_when_resumed(loop):
    # A producer at full speed, that respects the limits.
    total = 40 * (1 << 20)

    class Producer(RecordingProtocol):
        sent = most = 0
        paused = False

        def connection_made(self, transport):
            super().connection_made(transport)
            self.produce()

        def produce(self):
            while not self.paused and self.sent < total:
                self.transport.write(bytes(50_000))
                self.sent += 50_000
                self.most = max(self.most, self.transport.get_write_buffer_size())
            if self.sent >= total:
                # Not at once: closed in resume_writing, asyncio before gh-156512 ends it twice.
                self.loop.call_soon(self.transport.close)

        def pause_writing(self):
            self.paused = True

        def resume_writing(self):
            self.paused = False
            self.produce()

    async def main():
        async with wired(loop, lambda: Producer(loop)) as (_, protocol, peer):
            received = await in_executor(read_all, peer)
            assert len(received) == protocol.sent
            assert await protocol.lost is None
            assert protocol.most <= 64 * 1024 + 50_000

    run(loop, main())


@pytest.mark.stock_since("3.14.9", "gh-156512: connection_lost was called twice")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_transport_may_be_ended_when_resumed(loop, method):
    class Protocol(RecordingProtocol):
        def resume_writing(self):
            super().resume_writing()
            getattr(self.transport, method)()

    async def main():
        async with wired(loop, lambda: Protocol(loop)) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            assert await in_executor(drain, peer, MUCH) == pattern(MUCH)
            assert await protocol.lost is None
            assert protocol.names[-2:] == ["resume_writing", "connection_lost"]

    run(loop, main())


@pytest.mark.parametrize("count", range(4))
def test_close_after_a_write_in_the_turn_that_empties_the_queue_loses_nothing(loop, count):
    async def main():
        for _ in range(4):
            async with wired(loop) as (transport, protocol, peer):
                refilled = Refilled(transport, peer)
                refilled.fill()
                await turns(count)
                refilled.write(pattern(MUCH))
                transport.close()
                await until(refilled.read)
                refilled.check()
                assert await protocol.lost is None

    run(loop, main())


@pytest.mark.parametrize("count", range(4))
def test_buffer_size_is_right_in_the_turn_that_empties_the_queue(loop, count):
    async def main():
        for _ in range(4):
            async with wired(loop) as (transport, protocol, peer):
                refilled = Refilled(transport, peer)
                refilled.fill()
                await turns(count)
                refilled.write(pattern(MUCH))
                resumed = protocol.names.count("resume_writing")
                await turns(5)
                # Nobody has read: much of it is still here, and the protocol still paused.
                assert transport.get_write_buffer_size() > 0
                assert protocol.names[-1] == "pause_writing"
                assert protocol.names.count("resume_writing") == resumed
                size = sum(map(len, refilled.received))
                while size < len(refilled.expected):
                    refilled.read()
                    size = sum(map(len, refilled.received))
                    await asyncio.sleep(0)
                refilled.check()
                await until(lambda: protocol.names[-1] == "resume_writing")

    run(loop, main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_flow_control_that_raises_is_reported_and_harmless(loop, loop_errors, method):
    class Failing(RecordingProtocol):
        pass

    def fail(self):
        raise ZeroDivisionError(method)

    setattr(Failing, method, fail)

    async def main():
        async with wired(loop, lambda: Failing(loop)) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            assert await in_executor(drain, peer, MUCH) == pattern(MUCH)
            await until(lambda: loop_errors.items)
            assert not transport.is_closing()
            return transport, protocol

    transport, protocol = run(loop, main())
    context = loop_errors.take_one()
    assert context["message"] == f"protocol.{method}() failed"
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["transport"] is transport
    assert context["protocol"] is protocol
