"""What a turn owes to all connections alike, and to an interrupt that comes while it sleeps."""

import asyncio
import os
import socket

import pytest

from children import run_script
from helpers import PATIENCE, RecordingProtocol
from tcp_helpers import address, run, serving, turns, until, wired

POSIX = pytest.mark.skipif(os.name != "posix", reason="sends itself signals, forks")


@POSIX
@pytest.mark.veloop_only("asyncio may lose the callback that it has just taken from its queue")
def test_interrupt_of_a_sleeping_loop_loses_nothing_of_what_woke_it(loop_kind):
    # Bytes and SIGINT come together; the interrupt is raised where the poll returns.
    script = """
        import time
        class Protocol(asyncio.Protocol):
            def __init__(self):
                self.got = bytearray()
                # No bytecode, in which the interrupt could be raised, and be the program's loss.
                self.data_received = self.got.extend
        loop = new_event_loop()
        left, right = socket.socketpair()
        control, child_control = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            control.close()
            for i in range(100):
                if not child_control.recv(1):
                    os._exit(1)
                time.sleep(0.001)  # the parent falls asleep; if not, the test is only easier
                right.send(b"%03d " % i)
                os.kill(os.getppid(), signal.SIGINT)
            os._exit(0)
        _, protocol = loop.run_until_complete(loop.create_connection(Protocol, sock=left))
        interrupts = 0
        for i in range(100):
            try:
                control.send(b"x")
                loop.run_forever()
            except KeyboardInterrupt:
                interrupts += 1
        os.waitpid(pid, 0)
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        print(interrupts, protocol.got == b"".join(b"%03d " % i for i in range(100)))
        os._exit(0)
    """
    assert run_script(loop_kind, script).stdout.strip() == "100 True"


def test_busy_connections_do_not_starve_the_others(loop):
    # Each has more to say than all that can be read in a turn.
    size = 4 << 20

    async def main():
        async with serving(loop, lambda: RecordingProtocol(loop)) as (server, protocols):
            peers = []
            for _ in range(4):
                peer = socket.create_connection(address(server), PATIENCE)
                peer.setblocking(False)
                peers.append(peer)
            await until(lambda: len(protocols) == 4)
            chunk = memoryview(bytes(size))
            sent = [0] * 4
            # Fill all of them again and again: nobody may be far behind the first one.
            while max(sent) < size:
                for i, peer in enumerate(peers):
                    try:
                        sent[i] += peer.send(chunk[: size - sent[i]])
                    except BlockingIOError:
                        pass
                await asyncio.sleep(0)
            assert min(len(protocol.data) for protocol in protocols) > 0
            # And the listener is not starved either.
            with socket.create_connection(address(server), PATIENCE):
                await until(lambda: len(protocols) == 5)
            for peer in peers:
                peer.close()

    run(loop, main())


@pytest.mark.veloop_only("asyncio takes back the read event of a turn when reading stops in it")
def test_eof_is_told_once_though_reading_stops_and_starts_in_its_turn(loop):
    class Toggling(RecordingProtocol):
        eofs = 0

        def eof_received(self):
            self.eofs += 1
            return True

    async def main():
        async with wired(loop, lambda: Toggling(loop)) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            while not protocol.eofs:
                # In the ready queue of the very turn whose poll brings the end of file.
                transport.pause_reading()
                transport.resume_reading()
                await asyncio.sleep(0)
            await turns(10)
            assert protocol.eofs == 1

    run(loop, main())


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_descriptor_of_a_transport_cannot_be_watched(loop, paused):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            fd = transport.get_extra_info("socket").fileno()
            if paused:
                transport.pause_reading()
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(fd, print)
            if paused:
                transport.resume_reading()
            peer.send(b"hello")
            assert await protocol.received(5) == b"hello"

    run(loop, main())


@POSIX
@pytest.mark.veloop_only("asyncio's child takes the self-pipe out of the parent's epoll")
def test_child_that_closes_its_copy_of_the_loop_leaves_the_parents_alone(loop_kind):
    script = """
        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
            def data_received(self, data):
                self.transport.write(data)
        loop = new_event_loop()
        server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
        where = server.sockets[0].getsockname()
        peer = socket.create_connection(where, 10)
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        pid = os.fork()
        if pid == 0:
            loop.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        answers = []
        def ask():
            for sock in peer, socket.create_connection(where, 10):
                sock.sendall(b"ping")
                answers.append(sock.recv(4))
        loop.run_until_complete(asyncio.wait_for(loop.run_in_executor(None, ask), 20))
        print(answers)
        os._exit(0)
    """
    assert run_script(loop_kind, script).stdout.strip() == "[b'ping', b'ping']"


@pytest.mark.veloop_only("only veloop has targets")
def test_error_of_our_own_in_an_io_event_is_reported_and_the_loop_goes_on(loop, loop_errors):
    async def main():
        async with wired(loop) as (transport, protocol, peer):
            targets = loop._driver.targets
            ident = transport._ident
            good = targets[ident]

            def bad(kind, a, b):
                targets[ident] = good
                raise ZeroDivisionError("a bug of the loop")

            targets[ident] = bad
            peer.send(b"lost")
            await until(lambda: loop_errors.items)
            assert isinstance(loop_errors.take_one()["exception"], ZeroDivisionError)
            peer.send(b"more")
            assert await protocol.received(4) == b"more"

    run(loop, main())
