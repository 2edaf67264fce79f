"""_speedups: datagrams, with the accelerator and without."""

import asyncio
import contextlib
import contextvars
import gc
import socket
import sys

import pytest

from helpers import run
from speedups_helpers import accelerated_only

pytestmark = accelerated_only


@pytest.fixture
def loop_kind(variant):
    return "veloop"


class Collects(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = asyncio.Queue()
        self.errors = []

    def datagram_received(self, data, addr):
        self.got.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.append(exc)


class Endpoint:
    """`async with Endpoint(loop) as (transport, protocol, its address)`"""

    def __init__(self, loop, protocol=Collects, **where):
        self.loop, self.protocol = loop, protocol
        self.where = where or {"local_addr": ("127.0.0.1", 0)}

    async def __aenter__(self):
        self.transport, protocol = await self.loop.create_datagram_endpoint(
            self.protocol, **self.where
        )
        return self.transport, protocol, self.transport.get_extra_info("sockname")

    async def __aexit__(self, *exc):
        self.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


def test_addresses_of_more_peers_than_are_remembered(loop):
    """Each gets its own answer, at the first time and at the second."""

    async def main():
        async with Endpoint(loop) as (transport, protocol, address):
            for number in range(1100):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                    peer.settimeout(10)
                    peer.bind(("127.0.0.1", 0))
                    for _ in range(2):
                        peer.sendto(b"%d" % number, address)
                        data, sender = await asyncio.wait_for(protocol.got.get(), 10)
                        assert (data, sender) == (b"%d" % number, peer.getsockname())
                        assert type(sender) is tuple
                        transport.sendto(b"to %d" % number, sender)
                        assert peer.recvfrom(100) == (b"to %d" % number, address)

    run(loop, main())


class Host(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "kind",
    [tuple, lambda a: (Host(a[0]), a[1]), lambda a: (a[0], True), list, lambda a: (a[0], 1.5)],
)
def test_addresses_of_every_kind_are_taken_or_refused_alike(loop, kind):
    async def main():
        async with Endpoint(loop) as (transport, protocol, address):
            to = kind(address)
            for _ in range(3):
                transport.sendto(b"one", to)
            if type(to) is tuple and type(to[1]) is int:
                for _ in range(3):
                    assert await asyncio.wait_for(protocol.got.get(), 10) == (b"one", address)
            await asyncio.sleep(0)
            assert protocol.got.empty()

    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    run(loop, main())
    if kind is list or kind((1, 2))[1] == 1.5:
        assert [type(exc) for exc in seen] == [TypeError] * 3


def test_same_tuple_for_both_families(loop):
    """What an address is depends on who sends to it."""

    async def main():
        async with Endpoint(loop) as (transport, protocol, address):
            async with Endpoint(loop, local_addr=("::1", 0)) as (six, other, own):
                mapped = (address[0], address[1])
                transport.sendto(b"four", mapped)
                assert (await asyncio.wait_for(protocol.got.get(), 10))[0] == b"four"
                six.sendto(b"six", mapped)
                transport.sendto(b"four", mapped)
                assert (await asyncio.wait_for(protocol.got.get(), 10))[0] == b"four"
                six.sendto(b"own", own)
                assert await asyncio.wait_for(other.got.get(), 10) == (b"own", own)

    run(loop, main())


def test_failures_of_the_protocol_are_reported(loop, loop_errors):
    class Fails(Collects):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ZeroDivisionError(data)

    async def main():
        async with Endpoint(loop, Fails) as (transport, protocol, address):
            for data in (b"one", b"two"):
                transport.sendto(data, address)
                await asyncio.wait_for(protocol.got.get(), 10)
            await asyncio.sleep(0)
            contexts = loop_errors.take()
            assert [str(c["exception"]) for c in contexts] == ["b'one'", "b'two'"]
            assert all(c["transport"] is transport for c in contexts)
            assert all(c["protocol"] is protocol for c in contexts)
            assert "Fails.datagram_received" in contexts[0]["message"]

    run(loop, main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_leaves_the_loop_and_the_rest_comes_later(loop, kind):
    class Fails(Collects):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"one":
                raise kind

    async def main():
        async with Endpoint(loop, Fails) as (transport, protocol, address):
            transport.sendto(b"one", address)
            transport.sendto(b"two", address)
            return [(await protocol.got.get())[0] for _ in range(2)]

    task = loop.create_task(main())
    with pytest.raises(kind):
        loop.run_until_complete(task)
    assert run(loop, task) == [b"one", b"two"]


def test_protocol_without_the_method_and_protocol_that_is_replaced(loop, loop_errors):
    class Bare(asyncio.BaseProtocol):
        pass

    async def main():
        async with Endpoint(loop, Bare) as (transport, protocol, address):
            transport.sendto(b"one", address)
            while not loop_errors.items:
                await asyncio.sleep(0)
            assert type(loop_errors.take_one()["exception"]) is AttributeError
            other = Collects()
            transport.set_protocol(other)
            transport.sendto(b"two", address)
            assert (await asyncio.wait_for(other.got.get(), 10))[0] == b"two"

    run(loop, main())


def test_datagrams_are_received_in_the_context_of_the_endpoint(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Looks(Collects):
        def datagram_received(self, data, addr):
            seen.append(variable.get())
            variable.set(data)
            super().datagram_received(data, addr)

    async def main():
        variable.set("made")
        async with Endpoint(loop, Looks) as (transport, protocol, address):
            variable.set("later")
            for data in (b"one", b"two"):
                transport.sendto(data, address)
                await asyncio.wait_for(protocol.got.get(), 10)

    run(loop, main())
    assert seen == ["made", b"one"]


def test_other_arguments_than_usual(loop):
    async def main():
        async with Endpoint(loop) as (transport, protocol, address):
            transport.sendto(data=b"one", addr=address)
            transport.sendto(bytearray(b"two"), address)
            transport.sendto(b"", address)
            for data in (b"one", b"two", b""):
                assert (await asyncio.wait_for(protocol.got.get(), 10))[0] == data
            for wrong in [(), (b"one", address, 1)]:
                with pytest.raises(TypeError):
                    transport.sendto(*wrong)
            with pytest.raises(TypeError):
                transport.sendto("one", address)
            with pytest.raises(TypeError):
                transport.sendto(b"one", to=address)
            async with Endpoint(loop, remote_addr=address) as (fixed, _, own):
                fixed.sendto(b"three")
                fixed.sendto(b"four", address)
                fixed.sendto(b"five", None)
                for data in (b"three", b"four", b"five"):
                    assert await asyncio.wait_for(protocol.got.get(), 10) == (data, own)
                with pytest.raises(ValueError, match="Invalid address"):
                    fixed.sendto(b"six", ("127.0.0.2", 5))
            transport.sendto(b"x" * 70_000, address)
            assert [type(exc) for exc in protocol.errors] == [OSError]

    run(loop, main())


@pytest.mark.parametrize("variant", ["accelerated"], indirect=True)
@pytest.mark.parametrize(
    "name",
    ["_address_size", "_conn_lost", "_connected", "_context", "_family", "_live", "_pointer"],
)
@pytest.mark.parametrize("value", ["deleted", None, "text", -1, 2**80])
def test_odd_state_is_an_exception_at_most(loop, name, value):
    """And with everything in its place again it goes on."""
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        async with Endpoint(loop) as (transport, protocol, address):
            kept = getattr(transport, name)
            if value == "deleted" and name not in ("_live", "_pointer"):  # its end needs these
                delattr(transport, name)
            elif name != "_pointer" or value is None:  # a number is believed
                setattr(transport, name, value)
            for to in (address, (address[0], address[1])):
                with contextlib.suppress(AttributeError, TypeError, ValueError, OverflowError):
                    transport.sendto(b"one", to)
            for _ in range(5):
                await asyncio.sleep(0)
            setattr(transport, name, kept)
            if transport.is_closing():
                return  # it was a fatal error
            transport.sendto(b"after", address)
            while (await asyncio.wait_for(protocol.got.get(), 10))[0] != b"after":
                pass

    run(loop, main())


@pytest.mark.parametrize("variant", ["accelerated"], indirect=True)
def test_datagrams_leave_no_references(loop):
    async def main():
        async with Endpoint(loop) as (transport, protocol, address):
            data = b"one"

            async def send(times):
                for _ in range(times):
                    transport.sendto(data, address)
                    await protocol.got.get()
                gc.collect()

            await send(10)
            kept = (transport, protocol, address, data, address[0], loop)
            before = [sys.getrefcount(each) for each in kept]
            await send(1000)
            after = [sys.getrefcount(each) for each in kept]
            assert all(abs(a - b) < 20 for a, b in zip(after, before, strict=True))

    run(loop, main())
