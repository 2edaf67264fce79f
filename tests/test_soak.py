"""Ten thousand times the same: no descriptor, no memory, no handle stays behind.

In a child process, whose memory is its own. VELOOP_SOAK multiplies the counts.
"""

import os

import pytest

from children import run_script
from helpers import LINUX

SCALE = int(os.environ.get("VELOOP_SOAK", "1"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.memory,
    pytest.mark.skipif(not LINUX, reason="memory and descriptors are read from /proc"),
    pytest.mark.timeout(60 * SCALE),
]

MEASURE = """
    import gc

    PYPY = sys.implementation.name == "pypy"

    def measure():
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

    def flat(before, after, count):
        # Less than 100 bytes for each round is noise of the allocators, not a leak of ours.
        # How much PyPy keeps, for itself and its compiler, says nothing.
        grown = after[0] - before[0]
        assert after[1] == before[1], f"descriptors: {before[1]} -> {after[1]}"
        enough = PYPY or grown < max(100 * count, 1 << 20)
        assert enough, f"{grown} bytes grown in {count} rounds"
        if KIND == "veloop":
            from veloop._uv import lib
            return lib.vl_live_handles()
        return 0
"""

CONNECTIONS = """
    COUNT = {count}
    loop = new_event_loop()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    class Client(asyncio.Protocol):
        def __init__(self, done):
            self.done = done

        def connection_made(self, transport):
            self.transport = transport
            transport.write(b"hello")

        def data_received(self, data):
            if {abort}:
                self.transport.abort()
            else:
                self.transport.close()

        def connection_lost(self, exc):
            self.done.set_result(None)

    async def rounds(where, count):
        for _ in range(count):
            done = loop.create_future()
            await loop.create_connection(lambda: Client(done), *where)
            await done

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        where = server.sockets[0].getsockname()
        # With less the interpreter itself is still growing.
        await rounds(where, 1000)
        await asyncio.sleep(0.05)
        before = measure()
        await rounds(where, COUNT)
        await asyncio.sleep(0.05)
        live = flat(before, measure(), COUNT)
        server.close()
        return live

    live = loop.run_until_complete(main())
    # The server's and the loop's own.
    assert live < 10, live
    loop.close()
    assert KIND == "asyncio" or flat((1 << 40, 0), (0, 0), 1) == 0
    print("flat")
"""

LOOPS = """
    COUNT = {count}

    def rounds(count):
        for number in range(count):
            loop = new_event_loop()
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.close()
            if number % 1000 == 0:
                # Closed loops wait for it; without the GIL it is rare, and they look like growth.
                gc.collect()

    rounds(3000)
    before = measure()
    rounds(COUNT)
    assert flat(before, measure(), COUNT) == 0
    print("flat")
"""

SERVERS = """
    COUNT = {count}
    loop = new_event_loop()

    async def rounds(count):
        for _ in range(count):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            server.close()
            await server.wait_closed()

    async def main():
        await rounds(500)
        before = measure()
        await rounds(COUNT)
        return flat(before, measure(), COUNT)

    assert loop.run_until_complete(main()) < 10
    loop.close()
    print("flat")
"""

REFUSALS = """
    COUNT = {count}
    loop = new_event_loop()
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))

    async def rounds(count):
        for _ in range(count):
            try:
                await loop.create_connection(asyncio.Protocol, *holder.getsockname())
            except ConnectionRefusedError:
                continue
            raise AssertionError("connected")

    async def main():
        await rounds(500)
        before = measure()
        await rounds(COUNT)
        return flat(before, measure(), COUNT)

    assert loop.run_until_complete(main()) < 10
    loop.close()
    holder.close()
    print("flat")
"""

MEGABYTES = """
    COUNT = {count}
    loop = new_event_loop()

    async def main():
        left, right = socket.socketpair()
        received = 0
        waiter = None

        class Reader(asyncio.Protocol):
            def data_received(self, data):
                nonlocal received
                received += len(data)
                if received % (1 << 20) == 0 and not waiter.done():
                    waiter.set_result(None)

        writer, _ = await loop.connect_accepted_socket(asyncio.Protocol, left)
        reader, _ = await loop.connect_accepted_socket(Reader, right)

        async def rounds(count):
            nonlocal waiter
            for number in range(count):
                waiter = loop.create_future()
                writer.write(bytes(1 << 20))
                await waiter

        await rounds(100)
        before = measure()
        await rounds(COUNT)
        live = flat(before, measure(), COUNT)
        writer.close()
        reader.close()
        await asyncio.sleep(0.01)
        return live

    assert loop.run_until_complete(main()) < 10
    loop.close()
    print("flat")
"""


def soak(kind, script, count, **values):
    # Stock asyncio is the control: it shows that the measure is fair, with a tenth of the rounds.
    count = count * SCALE if kind == "veloop" else max(count // 10, 100)
    head, body = MEASURE, script.format(count=count, **values)
    assert run_script(kind, head + body).stdout.split() == ["flat"]


@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_ten_thousand_connections_leave_nothing_behind(loop_kind, abort):
    soak(loop_kind, CONNECTIONS, 10_000, abort=abort)


def test_ten_thousand_loops_leave_nothing_behind(loop_kind):
    soak(loop_kind, LOOPS, 10_000)


def test_thousands_of_servers_leave_nothing_behind(loop_kind):
    soak(loop_kind, SERVERS, 5_000)


def test_thousands_of_refused_connections_leave_nothing_behind(loop_kind):
    soak(loop_kind, REFUSALS, 5_000)


def test_gigabyte_through_one_connection_leaves_nothing_behind(loop_kind):
    soak(loop_kind, MEGABYTES, 1000)
