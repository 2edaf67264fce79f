"""The end of a TLS connection: in order, at once, by the peer, by the network."""

import asyncio
import logging
import socket
import ssl

import pytest

from certificates import client_context, server_context
from helpers import RecordingBufferedProtocol, RecordingProtocol, fill
from tcp_helpers import MUCH, in_executor, linked, pattern, reset, run, turns, until
from tls_helpers import NAME, looked, openssl, tls_linked, tls_wired

# ------------------------------------------------------------ close()


@pytest.mark.parametrize("size", [0, 1, 100_000, MUCH])
def test_close_sends_what_is_left_and_says_so(loop, size):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.write(pattern(size))
            transport.close()
            assert transport.is_closing()
            assert await in_executor(peer.recv_all) == pattern(size)
            await in_executor(peer.unwrap)
            assert await protocol.lost is None
            assert protocol.names[-2:] == ["eof", "connection_lost"]

    run(loop, main())


def test_close_twice_and_abort_after_the_end_are_nothing(loop):
    async def main():
        async with tls_linked(loop) as (client, server):
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert client.transport.is_closing()
            assert client.names.count("connection_lost") == 1
            server.transport.close()
            server.transport.abort()
            await turns()
            assert server.names.count("connection_lost") == 1

    run(loop, main())


def test_close_waits_for_the_peers_goodbye_as_long_as_the_timeout_says(loop):
    async def main():
        wired = tls_wired(loop, ssl_shutdown_timeout=0.1)
        async with wired as (transport, protocol, peer):
            before = loop.time()
            transport.close()
            exc = await protocol.lost
            assert isinstance(exc, TimeoutError)
            assert 0.1 <= loop.time() - before < 5
            assert peer.recv_all() == b""

    run(loop, main())


def test_timeout_also_ends_a_close_whose_data_nobody_reads(loop):
    async def main():
        wired = tls_wired(loop, ssl_shutdown_timeout=0.1)
        async with wired as (transport, protocol, _):
            transport.write(pattern(MUCH))
            transport.close()
            assert isinstance(await protocol.lost, TimeoutError)
            assert transport.get_write_buffer_size() == 0

    run(loop, main())


def test_end_of_stream_counts_as_goodbye(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.close()
            peer.sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None

    run(loop, main())


def test_closed_in_the_middle_of_receiving(loop):
    class Leaving(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"bye")
            self.transport.close()

    async def main():
        async with tls_wired(loop, lambda: Leaving(loop)) as (_, protocol, peer):
            peer.send(b"x" * 1000)
            assert await in_executor(peer.recv_all) == b"bye"
            await in_executor(peer.unwrap)
            assert await protocol.lost is None
            assert len(protocol.data) == 1000

    run(loop, main())


@pytest.mark.veloop_only("asyncio goes on calling buffer_updated() from within close()")
def test_nothing_is_delivered_after_close(loop):
    class Leaving(RecordingBufferedProtocol):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.close()

    async def main():
        async with tls_wired(loop, lambda: Leaving(loop, size=10)) as (_, protocol, peer):
            peer.sock.sendall(peer.records(b"x" * 100) + peer.records(b"y"))
            assert await in_executor(peer.recv_all) == b""
            await in_executor(peer.unwrap)
            assert await protocol.lost is None
            assert protocol.data == b"x" * 10

    run(loop, main())


@pytest.mark.veloop_only("for asyncio it is an error that data waits")
def test_closed_while_paused_with_data_waiting(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            peer.send(pattern(50_000))
            await until(lambda: transport.get_read_buffer_size() > 50_000)
            transport.close()
            assert await in_executor(peer.recv_all) == b""
            await in_executor(peer.unwrap)
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "eof", "connection_lost"]

    run(loop, main())


@pytest.mark.veloop_only("for asyncio it is an error that data waits")
def test_closed_while_paused_with_more_waiting_than_is_taken(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            peer.sock.setblocking(False)
            peer.send(pattern(300_000))
            await until(lambda: transport.get_read_buffer_size() > 300_000)
            peer.sock.setblocking(True)
            before = loop.time()
            transport.close()
            await in_executor(peer.recv_all)
            await in_executor(peer.unwrap)
            assert await protocol.lost is None
            assert loop.time() - before < 5

    run(loop, main())


def test_transport_below_closed_by_somebody_else(loop):
    """What was written before is with that one, and goes out."""

    async def main():
        async with linked(loop) as (client, server):
            below = client.transport
            secure, _ = await asyncio.gather(
                loop.start_tls(below, client, client_context(), server_hostname=NAME),
                loop.start_tls(server.transport, server, server_context(), server_side=True),
            )
            secure.write(b"last words")
            below.close()
            secure.close()
            assert secure.is_closing()
            assert await client.lost is None
            await server.lost
            assert server.data == b"last words"

    run(loop, main())


def test_goodbye_of_both_while_the_way_out_is_blocked(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            written = 0
            while not transport.get_write_buffer_size():
                transport.write(pattern(60_000))
                written += 60_000
            peer.goodbye()
            await turns(10)
            assert len(await in_executor(peer.recv_all)) == written
            await in_executor(peer.unwrap)
            assert await protocol.lost is None

    run(loop, main())


# ------------------------------------------------------------ a peer that goes on sending


def test_closed_connection_does_not_go_on_downloading(loop):
    """uvloop#471, #503: it went on for the 30 seconds of the shutdown timeout."""

    def send_forever(peer):
        sent = 0
        data = peer.records(bytes(1 << 14))
        try:
            while True:
                peer.sock.sendall(data)
                sent += len(data)
                data = peer.records(bytes(1 << 14))
        except OSError:
            return sent

    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            sending = loop.create_task(in_executor(send_forever, peer))
            await protocol.received(1 << 20)
            transport.close()
            received = len(protocol.data)
            before = loop.time()
            exc = await protocol.lost
            assert loop.time() - before < 5
            assert len(protocol.data) <= received + (1 << 20)
            await sending
            return exc

    exc = run(loop, main())
    assert isinstance(exc, ssl.SSLError)
    assert exc.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"


def test_aborted_connection_does_not_go_on_downloading(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            peer.sock.setblocking(False)
            peer.send(pattern(10_000))
            await protocol.received(10_000)
            fill(peer.sock)  # rubbish, which is never looked at
            transport.abort()
            assert await protocol.lost is None
            assert len(protocol.data) == 10_000

    run(loop, main())


@pytest.mark.veloop_only("asyncio gives up what it has to send as soon as the peer sends")
def test_what_was_written_before_close_goes_out_though_the_peer_sends(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            peer.send(b"I am not listening")
            await turns(5)
            assert await in_executor(peer.recv, MUCH) == pattern(MUCH)
            await in_executor(peer.unwrap)
            assert await protocol.lost is None

    run(loop, main())


@pytest.mark.veloop_only("get_read_buffer_size() of a closing transport is asyncio's own affair")
def test_flushing_connection_takes_only_so_much(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.write(pattern(MUCH))
            transport.close()
            peer.sock.setblocking(False)
            for _ in range(200):
                try:
                    peer.send(bytes(1 << 14))
                except BlockingIOError:
                    break
                await turns()
            assert transport.get_read_buffer_size() < 1 << 20
            transport.abort()
            assert await protocol.lost is None

    run(loop, main())


# ------------------------------------------------------------ ended by the peer


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_peers_goodbye_is_answered(loop, kind):
    async def main():
        async with tls_wired(loop, lambda: kind(loop)) as (transport, protocol, peer):
            peer.sock.sendall(peer.records(b"last words"))
            peer.goodbye()
            assert await protocol.lost is None
            assert protocol.events == [
                ("connection_made",),
                ("data", b"last words"),
                ("eof",),
                ("connection_lost", None),
            ]
            assert transport.is_closing()
            await in_executor(peer.unwrap)

    run(loop, main())


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_truncated_end_is_the_end(loop, kind):
    """Without close_notify, as so many peers do it."""

    async def main():
        async with tls_wired(loop, lambda: kind(loop)) as (_, protocol, peer):
            peer.sock.sendall(peer.records(b"last words"))
            peer.sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_end_in_the_middle_of_a_record(loop):
    async def main():
        async with tls_wired(loop) as (_, protocol, peer):
            peer.sock.sendall(peer.records(b"whole") + peer.records(b"half")[:-3])
            peer.sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.data == b"whole"

    run(loop, main())


def test_reset(loop):
    async def main():
        async with tls_wired(loop) as (_, protocol, peer):
            reset(peer.sock)
            assert isinstance(await protocol.lost, ConnectionResetError)
            assert protocol.names == ["connection_made", "connection_lost"]

    run(loop, main())


def test_reset_is_told_while_paused(loop):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            reset(peer.sock)
            assert isinstance(await protocol.lost, ConnectionResetError)

    run(loop, main())


@pytest.mark.parametrize("truncated", [False, True])
def test_data_before_the_end_waits_for_a_paused_protocol(loop, truncated):
    async def main():
        async with tls_wired(loop) as (transport, protocol, peer):
            transport.pause_reading()
            peer.send(b"last words")
            if truncated:
                peer.sock.shutdown(socket.SHUT_WR)
            else:
                peer.goodbye()
            await looked(loop)
            assert protocol.names == ["connection_made"]
            transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_end_waits_for_a_protocol_that_paused_at_the_data_before_it(loop):
    class Pausing(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        async with tls_wired(loop, lambda: Pausing(loop)) as (transport, protocol, peer):
            peer.send(b"last words")
            peer.sock.shutdown(socket.SHUT_WR)
            await looked(loop)
            assert protocol.names == ["connection_made", "data"]
            transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.names == ["connection_made", "data", "eof", "connection_lost"]

    run(loop, main())


def test_end_in_the_middle_of_a_renegotiation(loop):
    """What OpenSSL wants to read before it writes will not come."""

    async def main():
        context = server_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        wired = tls_wired(loop, server_side=False, peer=context)
        async with wired as (transport, protocol, peer):
            openssl(peer.sslobj, "SSL_renegotiate")
            peer.sslobj.do_handshake()
            peer.flush()
            await in_executor(peer.sock.recv, 1 << 16)  # the answer
            transport.write(b"this must wait")
            assert transport.get_write_buffer_size() > 0
            before = loop.time()
            peer.sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert loop.time() - before < 5

    run(loop, main())


def test_answer_in_eof_received_goes_out(loop):
    class Answering(RecordingProtocol):
        def eof_received(self):
            super().eof_received()
            self.transport.write(b"answer")

    async def main():
        async with tls_wired(loop, lambda: Answering(loop)) as (_, protocol, peer):
            peer.goodbye()
            # The session reads on after its own close_notify.
            assert await in_executor(peer.recv_all) == b"answer"
            assert await protocol.lost is None

    run(loop, main())


def test_half_open_is_not_kept_and_says_so(loop, caplog):
    async def main():
        factory = lambda: RecordingProtocol(loop, keep_open_on_eof=True)  # noqa: E731
        async with tls_wired(loop, factory) as (_, protocol, peer):
            peer.goodbye()
            assert await protocol.lost is None

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(loop, main())
    assert "returning true from eof_received() has no effect when using ssl" in caplog.text


@pytest.mark.parametrize("kind", [RecordingProtocol, RecordingBufferedProtocol])
def test_corrupted_record(loop, kind, loop_kind):
    async def main():
        async with tls_wired(loop, lambda: kind(loop)) as (_, protocol, peer):
            bad = bytearray(peer.records(b"bad"))
            bad[-1] ^= 0x80
            peer.sock.sendall(bad)
            exc = await protocol.lost
            assert isinstance(exc, ssl.SSLError)
            assert protocol.data == b""
            if loop_kind == "veloop":  # asyncio does not tell the peer
                with pytest.raises(ssl.SSLError, match="(?i)alert"):
                    await in_executor(peer.recv, 1)

    run(loop, main())


@pytest.mark.veloop_only("asyncio loses what was good")
def test_good_records_before_a_corrupted_one_are_delivered(loop):
    class Answering(RecordingProtocol):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"this cannot")
            self.transport.write(b"be sent any more")

    async def main():
        async with tls_wired(loop, lambda: Answering(loop)) as (_, protocol, peer):
            good = peer.records(b"good")
            bad = bytearray(peer.records(b"bad"))
            bad[-1] ^= 0x80
            peer.sock.sendall(good + bad)
            exc = await protocol.lost
            assert isinstance(exc, ssl.SSLError)
            # OpenSSL 3.5 has the one name for it, those before have the other.
            reason = exc.reason or str(exc)  # not all have one on PyPy
            assert "MAC" in reason.upper() or "LAYER_FAILURE" in reason.upper().replace(" ", "_")
            assert protocol.data == b"good"
            with pytest.raises(ssl.SSLError, match="(?i)alert"):
                await in_executor(peer.recv, 1)

    run(loop, main())
