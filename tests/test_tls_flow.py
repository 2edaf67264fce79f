"""Flow control over TLS: limits, pauses, what is kept in memory, calls from within callbacks."""

import asyncio
import ssl

import pytest

from certificates import server_context
from helpers import RecordingBufferedProtocol, RecordingProtocol
from tcp_helpers import MUCH, in_executor, pattern, run, turns, until
from tls_helpers import looked, openssl, tls_linked, tls_wired

KIB = 1024

# ------------------------------------------------------------ writing


def test_limits_are_asyncios(loop):
    async def main():
        async with tls_linked(loop) as (client, _):
            transport = client.transport
            assert transport.get_write_buffer_limits() == (128 * KIB, 512 * KIB)
            transport.set_write_buffer_limits(high=100)
            assert transport.get_write_buffer_limits() == (25, 100)
            transport.set_write_buffer_limits(low=10)
            assert transport.get_write_buffer_limits() == (10, 40)
            transport.set_write_buffer_limits()
            assert transport.get_write_buffer_limits() == (128 * KIB, 512 * KIB)
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high=1, low=2)
            assert transport.get_read_buffer_limits() == (64 * KIB, 256 * KIB)
            transport.set_read_buffer_limits(high=100)
            assert transport.get_read_buffer_limits() == (25, 100)
            transport.set_read_buffer_limits(low=10)
            assert transport.get_read_buffer_limits() == (10, 40)
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_read_buffer_limits(high=1, low=2)

    run(loop, main())


def test_writing_is_paused_and_resumed(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            written = 0
            while "pause_writing" not in protocol.names:
                transport.write(bytes(64 * KIB))
                written += 64 * KIB
            assert 512 * KIB <= transport.get_write_buffer_size() <= 600 * KIB
            assert transport._protocol_paused
            await in_executor(peer.recv, written)
            await until(lambda: "resume_writing" in protocol.names)
            assert transport.get_write_buffer_size() <= 128 * KIB
            assert protocol.names == ["connection_made", "pause_writing", "resume_writing"]

    run(loop, main())


@pytest.mark.veloop_only("asyncio pauses at size == high too, so with 0 it pauses for nothing")
def test_limit_of_zero_pauses_only_if_something_is_left(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            transport.write(b"goes out at once")
            assert protocol.names == ["connection_made"]
            transport.write(pattern(MUCH))
            assert protocol.names == ["connection_made", "pause_writing"]
            await in_executor(peer.recv, 16 + MUCH)
            await until(lambda: transport.get_write_buffer_size() == 0)
            assert protocol.names == ["connection_made", "pause_writing", "resume_writing"]

    run(loop, main())


def test_lowering_the_limit_pauses_at_once(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            while not transport.get_write_buffer_size():
                transport.write(bytes(64 * KIB))
            assert "pause_writing" not in protocol.names
            transport.set_write_buffer_limits(high=1)
            assert "pause_writing" in protocol.names

    run(loop, main())


@pytest.mark.veloop_only("asyncio encrypts everything at once, and sends from the original")
@pytest.mark.parametrize("how", ["write", "writelines"])
def test_buffer_that_changes_after_write(loop, how):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            written = 0
            while not transport.get_write_buffer_size():
                transport.write(bytes(64 * KIB))
                written += 64 * KIB
            data = bytearray(pattern(100 * KIB))
            if how == "write":
                transport.write(data)
                transport.write(memoryview(data))
            else:
                transport.writelines([data, memoryview(data)])
            data[:] = bytes(len(data))
            await in_executor(peer.recv, written)
            assert await in_executor(peer.recv, 200 * KIB) == 2 * pattern(100 * KIB)

    run(loop, main())


def test_peer_that_does_not_read_costs_what_was_written_and_no_more(loop):
    """uvloop#565, cpython#109534: TLS connections that grew."""

    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            total = 0
            for _ in range(1000):
                if "pause_writing" in protocol.names:
                    break
                transport.write(bytes(16 * KIB))
                total += 16 * KIB
                await turns(1)
            assert transport.get_write_buffer_size() <= 600 * KIB
            await turns(20)
            assert transport.get_write_buffer_size() <= 600 * KIB
            await in_executor(peer.recv, total)

    run(loop, main())


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_first_write_of_each_callback_goes_out_at_once(loop, kind):
    # The callback may take long, or wait for what the peer says to its write, as this one does.
    seen = []

    async def main():
        class Slow(kind):
            def _received(self, data):
                self.transport.write(b"first")
                seen.append(peer.recv(5))
                self.transport.write(b"second")

        async with tls_wired(loop, lambda: Slow(loop)) as (_, _, peer):
            for number in (1, 2):
                peer.send(b"go")
                await until(lambda number=number: len(seen) == number)
                assert await in_executor(peer.recv, 6) == b"second"

    run(loop, main())
    assert seen == [b"first"] * 2


def test_callbacks_do_not_wait_for_each_other(loop):
    # One read of the socket may be several callbacks of a BufferedProtocol.
    seen = []

    async def main():
        class Slow(RecordingBufferedProtocol):
            def _received(self, data):
                if seen:
                    seen.append(peer.recv(6))
                    return
                self.transport.write(b"first")
                self.transport.write(b"second")
                seen.append(peer.recv(5))

        async with tls_wired(loop, lambda: Slow(loop, 1)) as (_, _, peer):
            peer.send(b"go")
            await until(lambda: len(seen) == 2)

    run(loop, main())
    assert seen == [b"first", b"second"]


@pytest.mark.veloop_only("asyncio writes record by record")
def test_small_writes_of_one_callback_go_out_together(loop):
    class Chatty(RecordingProtocol):
        def data_received(self, data):
            for i in range(50):
                self.transport.write(b"%02d" % i)

    async def main():
        async with tls_wired(loop, lambda: Chatty(loop)) as (_, _, peer):
            peer.send(b"go")
            # OpenSSL reads one record at a time.
            records = [await in_executor(peer._do, peer.sslobj.read, 1000) for _ in range(2)]
            assert [len(record) for record in records] == [2, 98]

    run(loop, main())


# ------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_paused_protocol_gets_nothing_and_then_everything(loop, kind):
    async def main():
        async with tls_wired(loop, lambda: kind(loop)) as (transport, protocol, peer):
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            sending = loop.create_task(in_executor(peer.send, pattern(1 << 21)))
            await turns(50)
            assert protocol.data == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.received(1 << 21) == pattern(1 << 21)
            await sending

    run(loop, main())


def test_paused_connection_takes_only_so_much(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            sending = loop.create_task(in_executor(peer.send, pattern(MUCH)))
            await until(lambda: transport.get_read_buffer_size() >= 256 * KIB)
            for _ in range(20):
                await looked(loop)
            assert transport.get_read_buffer_size() <= 1024 * KIB
            assert not sending.done()
            transport.resume_reading()
            await protocol.received(MUCH)
            await sending
            assert transport.get_read_buffer_size() <= 64 * KIB

    run(loop, main())


def test_paused_again_before_it_went_on(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            peer.send(b"data")
            await until(lambda: transport.get_read_buffer_size())
            transport.resume_reading()
            transport.pause_reading()
            await turns(5)
            assert protocol.data == b""
            transport.resume_reading()
            assert await protocol.received(4) == b"data"

    run(loop, main())


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_pausing_from_within_a_callback(loop, kind):
    class Hesitant(kind):
        pauses = 0

        def _received(self, data):
            super()._received(data)
            self.pauses += 1
            self.transport.pause_reading()
            self.loop.call_soon(self.transport.resume_reading)

    async def main():
        async with tls_wired(loop, lambda: Hesitant(loop)) as (_, protocol, peer):
            sending = loop.create_task(in_executor(peer.send, pattern(1 << 20)))
            assert await protocol.received(1 << 20) == pattern(1 << 20)
            await sending
            assert protocol.pauses > 1

    run(loop, main())


@pytest.mark.veloop_only("asyncio fills as many buffers as there is data for")
def test_buffered_protocol_that_pauses_gets_no_more_buffers_filled(loop):
    class Hesitant(RecordingBufferedProtocol):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async def main():
        factory = lambda: Hesitant(loop, size=10)  # noqa: E731
        async with tls_wired(loop, factory) as (transport, protocol, peer):
            peer.send(pattern(100))
            await protocol.received(10)
            await turns(5)
            assert len(protocol.data) == 10
            for expected in range(20, 110, 10):
                transport.resume_reading()
                await turns(5)
                assert len(protocol.data) == expected

    run(loop, main())


# ------------------------------------------------------------ calls from within callbacks


@pytest.mark.parametrize("callback", ["data_received", "pause_writing", "resume_writing"])
def test_writing_from_within_a_callback(loop, callback):
    """picows#40: a transport that was not ready for that raised IndexError."""

    class Writing(RecordingProtocol):
        left = 20
        written = 0

        def say(self, size):
            self.written += size  # first, for the write may lead to another one
            self.transport.write(pattern(size))

        def again(self, name):
            if name == callback and self.left:
                self.left -= 1
                self.say(200_000)

        def data_received(self, data):
            super().data_received(data)
            self.again("data_received")

        def pause_writing(self):
            super().pause_writing()
            self.again("pause_writing")

        def resume_writing(self):
            super().resume_writing()
            self.again("resume_writing")

    async def main():
        async with tls_wired(loop, lambda: Writing(loop)) as (transport, protocol, peer):
            for _ in range(20):
                peer.send(b"go")
                protocol.say(300_000)
                await turns(1)
            total = 0
            while True:
                total += len(await in_executor(peer.recv, protocol.written - total))
                await turns(5)
                if total == protocol.written:
                    break
            assert protocol.left < 20
            peer.goodbye()
            assert await protocol.lost is None

    run(loop, main())


def test_what_is_written_from_within_callbacks_keeps_its_order(loop):
    class Echo(asyncio.Protocol):
        def __init__(self):
            self.connected = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport
            self.connected.set_result(transport)

        def data_received(self, data):
            for start in range(0, len(data), 3000):
                self.transport.write(data[start : start + 3000])

        def pause_writing(self):
            self.transport.pause_reading()

        def resume_writing(self):
            self.transport.resume_reading()

    async def main():
        async with tls_linked(loop, server_factory=Echo) as (client, _):
            client.transport.write(pattern(MUCH))
            assert await client.received(MUCH) == pattern(MUCH)

    run(loop, main())


@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_exception_of_a_flow_control_callback_is_reported(loop, loop_errors, callback):
    class Failing(RecordingProtocol):
        def pause_writing(self):
            super().pause_writing()
            if callback == "pause_writing":
                raise ZeroDivisionError

        def resume_writing(self):
            super().resume_writing()
            if callback == "resume_writing":
                raise ZeroDivisionError

    async def main():
        async with tls_wired(loop, lambda: Failing(loop)) as (transport, protocol, peer):
            written = 0
            while "pause_writing" not in protocol.names:
                transport.write(bytes(64 * KIB))
                written += 64 * KIB
            await in_executor(peer.recv, written)
            await until(lambda: "resume_writing" in protocol.names)

    run(loop, main())
    assert loop_errors.take_one()["message"] == f"protocol.{callback}() failed"


# ------------------------------------------------------------ keys change under way


@pytest.mark.parametrize("answer", [0, 1])
def test_key_update(loop, answer):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            for _ in range(3):
                openssl(peer.sslobj, "SSL_key_update", answer)
                peer.send(b"new key")
                transport.write(b"pong")
                assert await in_executor(peer.recv, 4) == b"pong"
            assert await protocol.received(21) == 3 * b"new key"

    run(loop, main())


def test_renegotiation(loop):
    """TLS 1.2: the server begins a new handshake in the middle of everything."""

    async def main():
        context = server_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        wired = tls_wired(loop, server_side=False, peer=context)
        async with wired as (transport, protocol, peer):
            for i in range(3):
                openssl(peer.sslobj, "SSL_renegotiate")
                peer.sslobj.do_handshake()  # the request
                peer.flush()
                transport.write(pattern(200_000))
                assert await in_executor(peer.recv, 200_000) == pattern(200_000)
                peer.send(b"done")
                assert await protocol.received(4 * (i + 1)) == (i + 1) * b"done"

    run(loop, main())


@pytest.mark.veloop_only("asyncio answers without limit")
def test_peer_that_asks_and_does_not_read_the_answers(loop):
    """Each key update is answered; the answers must not pile up for who does not read them."""

    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))  # the way out is blocked from now on
            peer.sock.setblocking(False)
            asked = 0
            for _ in range(20_000):
                openssl(peer.sslobj, "SSL_key_update", 1)
                peer.sslobj.do_handshake()
                try:
                    peer.sock.send(peer.outgoing.read())
                except BlockingIOError:
                    break
                asked += 1
                if asked % 100 == 0:
                    await turns(2)
            answers = transport._session.outgoing.pending
            assert answers < 512 * KIB
            peer.sock.setblocking(True)

    run(loop, main())
