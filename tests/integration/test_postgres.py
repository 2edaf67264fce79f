"""asyncpg with a real PostgreSQL server, on veloop and on asyncio.

asyncpg drives its own protocol over the loop's transports: TCP, Unix sockets, and TLS by
`loop.start_tls` in the middle of a connection.
"""

import asyncio
import contextlib
import io

import pytest
from payload import MEGABYTE, payload
from running import on_loop

from certificates import client_context

asyncpg = pytest.importorskip(
    "asyncpg", reason="asyncpg is not installed: it is a C extension with wheels for some Pythons"
)

pytestmark = pytest.mark.slow  # each connection is a process of the server

LARGE = 10 * MEGABYTE


def arguments(postgres, **changes):
    """How to reach the server: over TCP, in the clear. asyncpg by itself tries TLS first."""
    own = {
        "host": postgres.host,
        "port": postgres.port,
        "user": postgres.user,
        "database": "postgres",
        "ssl": False,
        "timeout": 20,
        "command_timeout": 20,
    }
    return own | changes


@contextlib.asynccontextmanager
async def connection(postgres, **changes):
    connected = await asyncpg.connect(**arguments(postgres, **changes))
    try:
        yield connected
    finally:
        await connected.close(timeout=20)


def pool(postgres, size, **changes):
    return asyncpg.create_pool(min_size=size, max_size=size, **arguments(postgres, **changes))


async def numbers(connected, count=1000):
    """A query of many rows, checked; the connection works then."""
    rows = await connected.fetch(
        "select i, repeat('x', i) as text from generate_series(1, $1) i", count
    )
    assert [row["i"] for row in rows] == list(range(1, count + 1))
    assert [len(row["text"]) for row in rows] == list(range(1, count + 1))


# ------------------------------------------------------------ connections


@on_loop
async def test_queries(loop, postgres):
    """Parameters and results of several kinds, prepared statements, a cursor."""
    async with connection(postgres) as connected:
        await numbers(connected)
        assert connected.get_server_version().major == int(postgres.version.split(".")[0])
        values = (1, 2.5, "text", b"\0bytes", None, [1, 2, 3])
        query = "select $1::int, $2::float8, $3::text, $4::bytea, $5::text, $6::int[]"
        assert tuple(await connected.fetchrow(query, *values)) == values
        statement = await connected.prepare("select $1::int * 2")
        assert [await statement.fetchval(i) for i in range(100)] == [2 * i for i in range(100)]
        async with connected.transaction():
            cursor = connected.cursor("select generate_series(1, 500)", prefetch=7)
            assert [row[0] async for row in cursor] == list(range(1, 501))


@on_loop
async def test_a_large_value(loop, postgres):
    """10 MB in one parameter and back in one result."""
    data = payload(LARGE)
    async with connection(postgres) as connected:
        assert await connected.fetchval("select $1::bytea", data) == data


@on_loop
async def test_unix_socket(loop, postgres):
    async with connection(postgres, host=str(postgres.directory)) as connected:
        await numbers(connected)
        assert await connected.fetchval("select inet_client_addr()") is None


TLS_STATE = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


@on_loop
async def test_tls(loop, postgres):
    """By `start_tls` on a connection that began in the clear; large data goes through it too."""
    async with connection(postgres, ssl=client_context()) as connected:
        assert await connected.fetchval(TLS_STATE)
        await numbers(connected)
        data = payload(LARGE)
        assert await connected.fetchval("select $1::bytea", data) == data
    async with connection(postgres) as connected:
        assert not await connected.fetchval(TLS_STATE)


@on_loop
async def test_tls_with_a_certificate_nobody_trusts(loop, postgres):
    """The connection does not come about, and nothing stays open."""
    import ssl

    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(**arguments(postgres, ssl=ssl.create_default_context()))


@on_loop
async def test_password(loop, postgres):
    """SCRAM, right and wrong."""
    name, password = postgres.password_user, postgres.password
    async with connection(postgres) as connected:
        await connected.execute(f"drop role if exists {name}")
        await connected.execute(f"create role {name} login password '{password}'")
    async with connection(postgres, user=name, password=password) as connected:
        assert await connected.fetchval("select current_user") == name
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**arguments(postgres, user=name, password="abracadabra"))


@on_loop
async def test_an_error_of_the_server(loop, postgres):
    """It is the exception of its query, and the connection goes on."""
    async with connection(postgres) as connected:
        with pytest.raises(asyncpg.UndefinedTableError):
            await connected.fetch("select * from nowhere")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connected.fetch("select 1 / (5 - i) from generate_series(1, 9) i")
        await numbers(connected)


@on_loop
async def test_the_server_ends_the_connection(loop, postgres):
    """The query under way fails, and the connection knows that it is closed."""
    lost = loop.create_future()
    async with connection(postgres) as other:
        victim = await asyncpg.connect(**arguments(postgres))
        victim.add_termination_listener(lambda _: lost.set_result(None))
        query = asyncio.create_task(victim.execute("select pg_sleep(60)"))
        await until_active(other, victim.get_server_pid())
        await other.execute("select pg_terminate_backend($1)", victim.get_server_pid())
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await query
        await lost
        assert victim.is_closed()


async def until_active(observer, pid):
    """Return when that connection sleeps in its query. Each round is a round trip."""
    query = "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1"
    while not await observer.fetchval(query, pid):
        pass


# ------------------------------------------------------------ transactions, COPY, notifications


@on_loop
async def test_transactions(loop, postgres):
    """Committed, rolled back by an exception, and nested with a savepoint."""
    async with connection(postgres) as connected:
        await connected.execute("create temporary table ledger (amount int)")
        async with connected.transaction():
            await connected.execute("insert into ledger values (1)")
        with pytest.raises(LookupError):
            async with connected.transaction():
                await connected.execute("insert into ledger values (2)")
                raise LookupError
        async with connected.transaction():
            await connected.execute("insert into ledger values (3)")
            with contextlib.suppress(LookupError):
                async with connected.transaction():
                    await connected.execute("insert into ledger values (4)")
                    raise LookupError
        rows = await connected.fetch("select amount from ledger order by amount")
        assert [row[0] for row in rows] == [1, 3]


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@on_loop
async def test_copy_in_and_out(loop, postgres, secure):
    """10 MB each way, with asyncpg's flow control over pause_writing and pause_reading."""
    lines = [b"%d\t%s\n" % (i, b"x" * 1000) for i in range(LARGE // 1000)]
    source = b"".join(lines)

    async def parts():
        for start in range(0, len(source), 100_003):
            yield source[start : start + 100_003]

    received = io.BytesIO()

    async def slowly(data):
        received.write(data)
        await asyncio.sleep(0)

    async with connection(postgres, ssl=secure and client_context()) as connected:
        await connected.execute("create temporary table pile (i int, text text)")
        done = await connected.copy_to_table("pile", source=parts())
        assert done == f"COPY {len(lines)}"
        query = "select * from pile order by i"
        assert await connected.copy_from_query(query, output=slowly) == done
    assert received.getvalue() == source


@on_loop
async def test_listen_and_notify(loop, postgres):
    """Notifications arrive while nothing is asked, and between the answers of queries."""
    got = asyncio.Queue()
    async with connection(postgres) as listener, connection(postgres) as sender:
        await listener.add_listener("news", lambda *args: got.put_nowait(args[2:]))
        for number in range(50):
            await sender.execute("select pg_notify('news', $1)", str(number))
        assert [await got.get() for _ in range(50)] == [("news", str(n)) for n in range(50)]
        await asyncio.gather(
            numbers(listener), *(sender.execute("notify news, 'more'") for _ in range(1))
        )
        assert await got.get() == ("news", "more")


# ------------------------------------------------------------ cancellation


@on_loop
async def test_a_cancelled_query(loop, postgres):
    """asyncpg asks the server, over a second connection, to give the query up."""
    async with connection(postgres) as other, connection(postgres) as connected:
        query = asyncio.create_task(connected.execute("select pg_sleep(60)"))
        await until_active(other, connected.get_server_pid())
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        # The connection is usable at once, and the server does not sleep any more.
        await numbers(connected)


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@on_loop
async def test_a_query_that_times_out(loop, postgres, secure):
    async with connection(postgres, ssl=secure and client_context()) as connected:
        with pytest.raises(asyncio.TimeoutError):
            await connected.execute("select pg_sleep(60)", timeout=0.05)
        await numbers(connected)


# ------------------------------------------------------------ pools


@on_loop
async def test_concurrent_queries_on_a_pool(loop, postgres):
    """200 callers on 10 connections, each gets its own answer."""

    async def ask(number):
        return await shared.fetchval("select $1::int * 2", number)

    async with pool(postgres, 10) as shared:
        answers = await asyncio.gather(*map(ask, range(200)))
        assert answers == [2 * number for number in range(200)]
        assert shared.get_size() == 10


@on_loop
async def test_a_pool_over_tls(loop, postgres):
    """Ten handshakes at once; then large and small answers side by side."""
    data = payload(MEGABYTE)
    async with pool(postgres, 10, ssl=client_context()) as shared:
        answers = await asyncio.gather(
            *(
                shared.fetchval("select $1::bytea", data[:size])
                for size in range(0, MEGABYTE, 50_000)
            )
        )
    assert [len(answer) for answer in answers] == list(range(0, MEGABYTE, 50_000))
    assert all(data.startswith(answer) for answer in answers)


@on_loop
async def test_cancelled_queries_on_a_pool(loop, postgres):
    """Callers that give up while they wait for a connection, or for an answer, harm nobody."""

    async def ask(number):
        if number % 2:
            return await asyncio.wait_for(shared.execute("select pg_sleep(60)"), 0.02)
        return await shared.fetchval("select $1::int", number)

    async with pool(postgres, 4) as shared:
        answers = await asyncio.gather(*map(ask, range(40)), return_exceptions=True)
        assert answers[::2] == list(range(0, 40, 2))
        assert {type(answer) for answer in answers[1::2]} == {TimeoutError}
        async with shared.acquire() as connected:
            await numbers(connected)
