"""tcp.py: names with several addresses, in which order they are tried, and what comes of failures.

The order shows in the error: every attempt that fails is named there, in the order of failing.
"""

import asyncio
import re
import socket

import pytest

from helpers import (
    LINUX,
    RecordingProtocol,
    has_ipv6,
    listening_socket,
    refusing_address,
    socket_pair,
)
from tcp_helpers import (
    HOST,
    addrinfo,
    hanging_address,
    resolve_to,
    run,
    turns,
    until,
    unused_addresses,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
linux = pytest.mark.skipif(not LINUX, reason="Linux lets a connection to a full queue wait")

# Longer than any test: an attempt that waits for it fails the test.
FOREVER = 3600.0


@pytest.fixture
def listener():
    with listening_socket() as sock:
        yield sock


async def connect(loop, *where, **kwargs):
    return await loop.create_connection(lambda: RecordingProtocol(loop), *where, **kwargs)


async def hang_up(transport, protocol):
    transport.close()
    await protocol.lost


def tried(exc):
    """(host, port) of the attempts that an error tells of, in order."""
    found = re.findall(r"Connect call failed \('([^']*)', (\d+)", str(exc))
    return [(host, int(port)) for host, port in found]


async def order_tried(loop, addresses, **kwargs):
    """In which order these addresses, which all refuse, are tried."""
    resolve_to(loop, {"name.example": addresses})
    with pytest.raises(OSError, match="Connect call failed") as caught:
        await connect(loop, "name.example", 1, **kwargs)
    return tried(caught.value)


# ------------------------------------------------------------ one after the other


def test_next_address_is_tried_when_one_refuses(loop, listener):
    async def main():
        with refusing_address() as bad:
            resolve_to(loop, {"name.example": [bad, bad, listener.getsockname()]})
            transport, protocol = await connect(loop, "name.example", 1)
        assert transport.get_extra_info("peername") == listener.getsockname()
        await hang_up(transport, protocol)

    run(loop, main())


def test_address_that_is_there_ends_the_attempts(loop):
    async def main():
        with listening_socket() as first, listening_socket() as second:
            names = [first.getsockname(), second.getsockname()]
            resolve_to(loop, {"name.example": names})
            transport, protocol = await connect(loop, "name.example", 1)
            assert transport.get_extra_info("peername") == names[0]
            second.settimeout(0)
            with pytest.raises(BlockingIOError):
                second.accept()
            await hang_up(transport, protocol)

    run(loop, main())


def test_addresses_are_tried_in_the_resolvers_order(loop):
    async def main():
        with unused_addresses(socket.AF_INET, 4) as addresses:
            expected = list(addresses)
            assert await order_tried(loop, addresses) == expected
            assert await order_tried(loop, addresses[::-1]) == expected[::-1]

    run(loop, main())


def test_only_address_is_the_error_itself(loop):
    async def main():
        with refusing_address() as bad:
            resolve_to(loop, {"name.example": [bad]})
            with pytest.raises(ConnectionRefusedError):
                await connect(loop, "name.example", 1)

    run(loop, main())


def test_equal_errors_are_raised_as_one(loop):
    async def main():
        with refusing_address() as bad:
            resolve_to(loop, {"name.example": [bad, bad]})
            with pytest.raises(ConnectionRefusedError) as caught:
                await connect(loop, "name.example", 1)
            assert str(caught.value).count(str(bad)) == 1

    run(loop, main())


def test_different_errors_are_told_together(loop):
    async def main():
        with unused_addresses(socket.AF_INET, 3) as addresses:
            resolve_to(loop, {"name.example": addresses})
            with pytest.raises(OSError, match="Multiple exceptions: ") as caught:
                await connect(loop, "name.example", 1)
            for where in addresses:
                assert str(where) in str(caught.value)

    run(loop, main())


@pytest.mark.stock_since("3.12.0", "all_errors came with it")
@pytest.mark.parametrize("delay", [None, FOREVER])
def test_all_errors_gives_each_of_them(loop, delay):
    async def main():
        with unused_addresses(socket.AF_INET, 3) as addresses:
            resolve_to(loop, {"name.example": addresses})
            with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
                await connect(loop, "name.example", 1, all_errors=True, happy_eyeballs_delay=delay)
            failures = caught.value.exceptions
            assert all(isinstance(exc, ConnectionRefusedError) for exc in failures)
            assert [tried(exc) for exc in failures] == [[where] for where in addresses]

    run(loop, main())


@pytest.mark.stock_since("3.12.0", "all_errors came with it")
def test_all_errors_is_a_group_also_for_one_error(loop):
    async def main():
        with refusing_address() as bad:
            with pytest.raises(ExceptionGroup) as caught:
                await connect(loop, *bad, all_errors=True)
            assert len(caught.value.exceptions) == 1

    run(loop, main())


@pytest.mark.stock_since("3.12.0", "all_errors came with it")
def test_all_errors_does_not_matter_when_it_works(loop, listener):
    async def main():
        with refusing_address() as bad:
            resolve_to(loop, {"name.example": [bad, listener.getsockname()]})
            await hang_up(*await connect(loop, "name.example", 1, all_errors=True))

    run(loop, main())


@needs_ipv6
@pytest.mark.stock_since("3.12.0", "all_errors came with it")
def test_errors_of_local_addresses_are_among_all_errors(loop, listener):
    async def main():
        with unused_addresses(socket.AF_INET, 2) as taken:
            resolve_to(loop, {"there": [listener.getsockname()], "here": taken})
            with pytest.raises(ExceptionGroup) as caught:
                await connect(loop, "there", 1, local_addr=("here", 0), all_errors=True)
            text = [str(exc) for exc in caught.value.exceptions]
            assert [where for where in taken for line in text if str(where) in line] == taken

    run(loop, main())


# ------------------------------------------------------------ interleaving


@needs_ipv6
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        # The resolver's answer is 4a 4b 4c 6a 6b.
        ({}, "4a 4b 4c 6a 6b"),
        ({"interleave": 0}, "4a 4b 4c 6a 6b"),
        ({"interleave": 1}, "4a 6a 4b 6b 4c"),
        ({"interleave": 2}, "4a 4b 6a 4c 6b"),
        ({"interleave": 3}, "4a 4b 4c 6a 6b"),
        ({"interleave": 9}, "4a 4b 4c 6a 6b"),
        ({"happy_eyeballs_delay": FOREVER}, "4a 6a 4b 6b 4c"),
        ({"happy_eyeballs_delay": FOREVER, "interleave": 0}, "4a 4b 4c 6a 6b"),
        ({"happy_eyeballs_delay": FOREVER, "interleave": 2}, "4a 4b 6a 4c 6b"),
    ],
    ids=str,
)
def test_families_are_interleaved(loop, kwargs, expected):
    async def main():
        with (
            unused_addresses(socket.AF_INET, 3) as four,
            unused_addresses(socket.AF_INET6, 2) as six,
        ):
            names = {where[:2]: f"4{'abc'[number]}" for number, where in enumerate(four)}
            names |= {where[:2]: f"6{'abc'[number]}" for number, where in enumerate(six)}
            order = await order_tried(loop, four + six, **kwargs)
            assert " ".join(names[where] for where in order) == expected

    run(loop, main())


@needs_ipv6
def test_family_of_the_resolvers_first_answer_comes_first(loop):
    async def main():
        with (
            unused_addresses(socket.AF_INET, 1) as four,
            unused_addresses(socket.AF_INET6, 2) as six,
        ):
            order = await order_tried(loop, six + four, interleave=1)
            assert order == [six[0][:2], four[0], six[1][:2]]

    run(loop, main())


# ------------------------------------------------------------ happy eyeballs


@pytest.mark.parametrize("delay", [0, 0.25, FOREVER])
def test_first_address_wins_when_it_answers(loop, delay):
    async def main():
        with listening_socket() as first, listening_socket() as second:
            names = [first.getsockname(), second.getsockname()]
            resolve_to(loop, {"name.example": names})
            transport, protocol = await connect(loop, "name.example", 1, happy_eyeballs_delay=delay)
            if delay:
                assert transport.get_extra_info("peername") == names[0]
            await hang_up(transport, protocol)

    run(loop, main())


def test_failure_starts_the_next_attempt_without_waiting(loop, listener):
    async def main():
        with unused_addresses(socket.AF_INET, 2) as bad:
            resolve_to(loop, {"name.example": [*bad, listener.getsockname()]})
            transport, protocol = await connect(
                loop, "name.example", 1, happy_eyeballs_delay=FOREVER
            )
        assert transport.get_extra_info("peername") == listener.getsockname()
        await hang_up(transport, protocol)

    run(loop, main())


@linux
def test_address_that_hangs_is_overtaken_after_the_delay(loop, listener):
    async def main():
        with hanging_address() as where:
            resolve_to(loop, {"name.example": [where, listener.getsockname()]})
            begun = loop.time()
            transport, protocol = await connect(loop, "name.example", 1, happy_eyeballs_delay=0.02)
            assert loop.time() - begun >= 0.02
            assert transport.get_extra_info("peername") == listener.getsockname()
            await hang_up(transport, protocol)

    run(loop, main())


@linux
def test_attempts_that_lost_are_closed(loop, listener):
    # That no descriptor and no handle is left is what conftest looks at.
    async def main():
        with hanging_address() as one, hanging_address() as two:
            resolve_to(loop, {"name.example": [one, two, listener.getsockname()]})
            before = asyncio.all_tasks()
            transport, protocol = await connect(loop, "name.example", 1, happy_eyeballs_delay=0)
            await hang_up(transport, protocol)
            assert asyncio.all_tasks() == before

    run(loop, main())


@linux
def test_all_failing_while_one_hangs_waits_for_it(loop):
    async def main():
        with hanging_address() as where, refusing_address() as bad:
            resolve_to(loop, {"name.example": [where, bad]})
            task = loop.create_task(connect(loop, "name.example", 1, happy_eyeballs_delay=0))
            await turns(50)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(loop, main())


@linux
def test_cancelled_with_several_attempts_under_way(loop):
    async def main():
        with hanging_address() as one, hanging_address() as two:
            resolve_to(loop, {"name.example": [one, two]})
            before = len(asyncio.all_tasks())
            task = loop.create_task(connect(loop, "name.example", 1, happy_eyeballs_delay=0))
            await until(lambda: len(asyncio.all_tasks()) >= before + 3)
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns()
            assert len(asyncio.all_tasks()) == before

    run(loop, main())


@pytest.mark.parametrize("delay", [None, 0, 0.25])
def test_resolvers_nonsense_among_good_addresses_is_passed_over(loop, listener, delay):
    async def getaddrinfo(*args, **kwargs):
        good = addrinfo(listener.getsockname())
        return [(999, *good[1:]), good]

    async def main():
        loop.getaddrinfo = getaddrinfo
        transport, protocol = await connect(loop, "name.example", 1, happy_eyeballs_delay=delay)
        await hang_up(transport, protocol)

    run(loop, main())


def test_exception_that_is_no_oserror_ends_the_attempts(loop, listener):
    # A port out of range in what the application's resolver says.
    async def main():
        resolve_to(loop, {"name.example": [(HOST, 65536), listener.getsockname()]})
        with pytest.raises(OverflowError):
            await connect(loop, "name.example", 1)

    run(loop, main())


def test_connection_attempts_do_not_mix_with_readers(loop, listener):
    # The numbers of failed attempts come back at once, for descriptors of the application.
    async def main():
        seen = []
        with refusing_address() as bad:
            for _ in range(20):
                resolve_to(loop, {"name.example": [bad, listener.getsockname()]})
                connecting = loop.create_task(connect(loop, "name.example", 1))
                await turns(1)
                with socket_pair() as (left, right):
                    loop.add_reader(left, seen.append, 1)
                    right.send(b"x")
                    await until(lambda: seen)
                    loop.remove_reader(left)
                seen.clear()
                await hang_up(*await connecting)
                listener.accept()[0].close()

    run(loop, main())
