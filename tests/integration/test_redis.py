"""redis-py's asyncio client with a real Redis server, on veloop and on asyncio.

The client is built on asyncio's streams: over TCP, a Unix socket, and TLS from the start.
"""

import asyncio
import contextlib

import pytest
from payload import MEGABYTE, payload
from running import on_loop

from certificates import CA

redis = pytest.importorskip(
    "redis.asyncio", reason="redis is not installed (pip install '.[test]')"
)

pytestmark = pytest.mark.slow  # the first test starts the server


def url(server, kind):
    if kind == "unix":
        return f"unix://{server.unix_path}"
    if kind == "tcp":
        return f"redis://{server.host}:{server.port}"
    if not server.has_tls:
        pytest.skip(f"Redis {server.version} here was built without TLS")
    return f"rediss://{server.host}:{server.tls_port}"


def options(kind):
    return {"socket_timeout": 20} | ({"ssl_ca_certs": str(CA)} if kind == "tls" else {})


@contextlib.asynccontextmanager
async def client(server, kind="tcp", **more):
    """A client with an empty database."""
    async with redis.Redis.from_url(url(server, kind), **options(kind), **more) as connected:
        await connected.flushdb()
        yield connected


EVERY_WAY = pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])


@EVERY_WAY
@on_loop
async def test_commands(loop, redis_server, kind):
    """Values of all kinds, one after another on one connection."""
    async with client(redis_server, kind) as r:
        assert await r.ping()
        for number in range(200):
            await r.set(f"key {number}", number)
        assert await r.dbsize() == 200
        assert await r.get("key 17") == b"17"
        assert await r.get("no such key") is None
        await r.hset("hash", mapping={"a": 1, "b": 2})
        assert await r.hgetall("hash") == {b"a": b"1", b"b": b"2"}
        keys = {key async for key in r.scan_iter("key *", count=10)}
        assert keys == {b"key %d" % number for number in range(200)}
        with pytest.raises(redis.ResponseError):
            await r.incr("hash")


@EVERY_WAY
@on_loop
async def test_large_values(loop, redis_server, kind):
    """1 MB each, several at a time, and all of them in one answer."""
    data = payload(MEGABYTE)
    async with client(redis_server, kind) as r:
        await asyncio.gather(*(r.set(f"large {i}", data[i:]) for i in range(8)))
        for i in range(8):
            assert await r.get(f"large {i}") == data[i:]
        assert await r.mget([f"large {i}" for i in range(8)]) == [data[i:] for i in range(8)]


@EVERY_WAY
@on_loop
async def test_pipeline(loop, redis_server, kind):
    """1,000 commands in one write; a transaction; one that a change from outside spoils."""
    async with client(redis_server, kind) as r:
        async with r.pipeline(transaction=False) as pipe:
            for number in range(1000):
                pipe.incrby("sum", number)
            answers = await pipe.execute()
        assert answers[-1] == sum(range(1000))
        async with r.pipeline(transaction=True) as pipe:
            assert await pipe.set("a", 1).incr("a").execute() == [True, 2]
        async with r.pipeline() as pipe:
            await pipe.watch("a")
            await r.set("a", 100)
            pipe.multi()
            pipe.incr("a")
            with pytest.raises(redis.WatchError):
                await pipe.execute()


@EVERY_WAY
@on_loop
async def test_publish_and_subscribe(loop, redis_server, kind):
    """Every message arrives, in order, at each of several subscribers."""

    async def follow(subscription):
        got = []
        async for message in subscription.listen():
            if message["type"] == "message":
                got.append(int(message["data"]))
                if message["data"] == b"99":
                    return got

    async with client(redis_server, kind) as r, contextlib.AsyncExitStack() as stack:
        subscriptions = [await stack.enter_async_context(r.pubsub()) for _ in range(5)]
        for subscription in subscriptions:
            await subscription.subscribe("news")
            assert (await subscription.get_message(timeout=20))["type"] == "subscribe"
        followers = [asyncio.create_task(follow(each)) for each in subscriptions]
        for number in range(100):
            assert await r.publish("news", number) == 5
        assert await asyncio.gather(*followers) == [list(range(100))] * 5


@on_loop
async def test_blocking_pop(loop, redis_server):
    """Several wait for what one brings: each item is had once."""
    async with client(redis_server) as r:
        waiters = [asyncio.create_task(r.blpop("queue", timeout=0)) for _ in range(10)]
        await until_blocked(r, 10)
        await r.rpush("queue", *range(10))
        items = await asyncio.gather(*waiters)
        assert sorted(int(item) for _, item in items) == list(range(10))


async def until_blocked(r, count):
    """Return when the server says that so many clients wait. Each round is a round trip."""
    while (await r.info("clients"))["blocked_clients"] != count:
        pass


@on_loop
async def test_a_cancelled_blocking_pop(loop, redis_server):
    """Its connection is closed, so no item is lost to it, and the client goes on."""
    async with client(redis_server) as r:
        waiter = asyncio.create_task(r.blpop("queue", timeout=0))
        await until_blocked(r, 1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await until_blocked(r, 0)
        await r.rpush("queue", "item")
        assert await r.blpop("queue", timeout=20) == (b"queue", b"item")


@on_loop
async def test_a_blocking_pop_that_times_out(loop, redis_server):
    """The server's own timeout is no error; the client's is."""
    async with client(redis_server) as r:
        assert await r.blpop("queue", timeout=0.01) is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(r.blpop("queue", timeout=0), 0.05)
        await until_blocked(r, 0)
        assert await r.ping()


@EVERY_WAY
@on_loop
async def test_many_callers_on_a_pool(loop, redis_server, kind):
    """200 callers on 20 connections, where those who find none free wait."""

    async def ask(number):
        await r.set(f"key {number}", number)
        return int(await r.get(f"key {number}"))

    async with client(redis_server, kind) as main:
        shared = redis.BlockingConnectionPool.from_url(
            url(redis_server, kind),
            max_connections=20,
            timeout=20,
            client_name="pool",
            **options(kind),
        )
        async with redis.Redis.from_pool(shared) as r:
            assert await asyncio.gather(*map(ask, range(200))) == list(range(200))
            names = [each["name"] for each in await main.client_list()]
            assert names.count("pool") == 20


@on_loop
async def test_the_server_drops_the_connection(loop, redis_server):
    """The command under way fails with the client's ConnectionError; the next has a new one."""
    async with client(redis_server) as r, client(redis_server, retry=None) as victim:
        number = await victim.client_id()
        waiter = asyncio.create_task(victim.blpop("queue", timeout=0))
        await until_blocked(r, 1)
        await r.client_kill_filter(_id=number)
        with pytest.raises(redis.ConnectionError):
            await waiter
        assert await victim.ping()


@on_loop
async def test_tls_with_a_certificate_nobody_trusts(loop, redis_server):
    """The handshake fails, as the client's ConnectionError, and nothing stays open."""
    async with redis.Redis.from_url(url(redis_server, "tls"), retry=None) as r:
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await r.ping()
