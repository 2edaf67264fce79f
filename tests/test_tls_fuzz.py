"""TLS under everything at once, at random but seeded: what arrives is what was sent."""

import asyncio
import random
import ssl

import pytest

from certificates import client_context, server_context
from helpers import RecordingBufferedProtocol, RecordingProtocol
from tcp_helpers import in_executor, pattern, run, turns
from tls_helpers import NAME, openssl, tls_linked, tls_wired

SEEDS = range(12)
SIZES = [1, 2, 100, 4096, 16384, 16385, 70_000, 300_000]


class Mood:
    """A protocol that pauses and resumes, writes where it should not, and counts what it wrote."""

    def begin(self, choose):
        self.choose = choose
        self.sent = bytearray()
        self.left = 30
        self.wait = None

    def say(self):
        if self.left and not self.transport.is_closing():
            self.left -= 1
            data = pattern(self.choose.choice(SIZES))
            how = self.choose.randrange(3)
            self.sent += data
            if how == 0:
                self.transport.write(data)
            elif how == 1:
                changing = bytearray(data)
                self.transport.write(changing)
                changing[:] = bytes(len(changing))
            else:
                cut = self.choose.randrange(len(data) + 1)
                self.transport.writelines([data[:cut], memoryview(data)[cut:]])

    def _received(self, data):
        super()._received(data)
        mood = self.choose.random()
        if mood < 0.2:
            self.say()
        elif mood < 0.4:
            self.transport.pause_reading()
            self.loop.call_soon(self.resume, self.choose.randrange(4))

    def resume(self, turns):
        if turns:
            self.loop.call_soon(self.resume, turns - 1)
        else:
            self.transport.resume_reading()

    def pause_writing(self):
        self.wait = self.loop.create_future()
        if self.choose.random() < 0.3:
            self.say()

    def resume_writing(self):
        if not self.wait.done():
            self.wait.set_result(None)
        if self.choose.random() < 0.3:
            self.say()

    async def talk(self):
        while self.left:
            self.say()
            if self.wait is not None:
                await self.wait
            await turns(self.choose.randrange(3))


class MoodyProtocol(Mood, RecordingProtocol):
    pass


class MoodyBufferedProtocol(Mood, RecordingBufferedProtocol):
    pass


def protocols(loop, choose):
    def factory():
        if choose.random() < 0.5:
            protocol = MoodyProtocol(loop)
        else:
            protocol = MoodyBufferedProtocol(loop, size=choose.choice([100_000, 1 << 20, 7000]))
            # asyncio needs a view here, else it loses data.
            protocol.buffer = memoryview(protocol.buffer)
        protocol.begin(choose)
        return protocol

    return factory


@pytest.mark.veloop_only("asyncio sends from the original of a buffer that changes")
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_both_ends_moody(loop, seed, layers):
    choose = random.Random(f"{seed} {layers}")

    async def main():
        factory = protocols(loop, choose)
        context = server_context()
        if choose.random() < 0.5:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with tls_linked(loop, factory, factory, server=context) as (client, server):
            if layers == 2:
                client.transport, server.transport = await asyncio.gather(
                    loop.start_tls(
                        client.transport, client, client_context(), server_hostname=NAME
                    ),
                    loop.start_tls(server.transport, server, server_context(), server_side=True),
                )
            await asyncio.gather(client.talk(), server.talk())
            while len(client.data) < len(server.sent) or len(server.data) < len(client.sent):
                await server.received(len(client.sent))
                await client.received(len(server.sent))
            assert client.data == server.sent
            assert server.data == client.sent
            closing = choose.choice([client, server])
            closing.transport.close()
            assert await client.lost is None
            assert await server.lost is None

    run(loop, main())


@pytest.mark.parametrize("seed", range(4))
def test_keys_that_change_under_load(loop, seed):
    """The peer renews its keys between its records, and asks for new ones of ours."""
    choose = random.Random(seed)
    renegotiating = bool(seed % 2)

    def peer_talks(peer):
        sent = b""
        for _ in range(20):
            if renegotiating:
                if choose.random() < 0.3:
                    openssl(peer.sslobj, "SSL_renegotiate")
                    peer.handshake()
            elif choose.random() < 0.5:
                openssl(peer.sslobj, "SSL_key_update", choose.randrange(2))
            data = pattern(choose.choice(SIZES))
            peer.send(data)
            sent += data
        return sent

    async def main():
        context = server_context()
        if renegotiating:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        wired = tls_wired(loop, server_side=False, peer=context)
        async with wired as (transport, protocol, peer):
            if not renegotiating:
                for _ in range(10):
                    transport.write(pattern(100))  # read by nobody yet
            sent = await in_executor(peer_talks, peer)
            assert await protocol.received(len(sent)) == sent
            if not renegotiating:
                assert await in_executor(peer.recv, 1000) == 10 * pattern(100)
            transport.write(b"still there")
            assert await in_executor(peer.recv, 11) == b"still there"

    run(loop, main())


@pytest.mark.parametrize("seed", range(30))
def test_one_byte_wrong_anywhere(loop, seed):
    """Whatever byte of whatever record is wrong: what was delivered is a beginning of the truth."""
    choose = random.Random(seed)

    async def main():
        async with tls_wired(loop) as (_, protocol, peer):
            wire = bytearray()
            truth = b""
            for _ in range(5):
                data = pattern(choose.choice(SIZES[:5]))
                truth += data
                wire += peer.records(data)
            place = choose.randrange(len(wire))
            wire[place] ^= 1 << choose.randrange(8)
            peer.sock.sendall(wire)
            peer.sock.shutdown(1)
            exc = await protocol.lost
            assert exc is None or isinstance(exc, OSError)
            assert truth.startswith(bytes(protocol.data))
            assert len(protocol.data) < len(truth)

    run(loop, main())


@pytest.mark.veloop_only("asyncio sends from the original of a buffer that changes")
@pytest.mark.parametrize("seed", SEEDS)
def test_ended_at_any_time(loop, seed):
    """close() or abort() by anybody while both ends talk: it ends, and nothing is made up."""
    choose = random.Random(seed)

    async def main():
        factory = protocols(loop, choose)
        async with tls_linked(loop, factory, factory) as (client, server):
            talking = [loop.create_task(each.talk()) for each in (client, server)]
            await turns(choose.randrange(60))
            ending = choose.choice([client, server])
            getattr(ending.transport, choose.choice(["close", "abort"]))()
            for protocol in (client, server):
                protocol.transport.resume_reading()
            for protocol in (client, server):
                await protocol.lost
            assert server.sent.startswith(client.data)
            assert client.sent.startswith(server.data)
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)

    run(loop, main())
