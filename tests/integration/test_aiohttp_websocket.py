"""aiohttp's WebSockets, server and client on one loop, on veloop and on asyncio."""

import asyncio
import functools

import pytest
from payload import MEGABYTE, payload
from running import on_loop

from certificates import client_context, server_context

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install '.[test]')")
web = pytest.importorskip("aiohttp.web")

from aiohttp_site import Site  # noqa: E402

SECURE = pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])


def site(handler, secure=False):
    if not secure:
        return Site(web.get("/", handler))
    connector = functools.partial(aiohttp.TCPConnector, ssl=client_context())
    return Site(web.get("/", handler), tls=server_context(), connector=connector)


async def echo(request):
    ws = web.WebSocketResponse(max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        if message.type is aiohttp.WSMsgType.TEXT:
            await ws.send_str(message.data)
        else:
            await ws.send_bytes(message.data)
    return ws


@SECURE
@on_loop
async def test_echo(loop, secure):
    """Texts and bytes, small and large, and the closing handshake."""
    async with site(echo, secure) as s, s.session.ws_connect("/", max_msg_size=0) as ws:
        for number in range(500):
            await ws.send_str(f"message {number}")
            assert await ws.receive_str() == f"message {number}"
        for size in (0, 1, 125, 126, 65_535, 65_536, MEGABYTE, 10 * MEGABYTE):
            await ws.send_bytes(payload(size))
            assert await ws.receive_bytes() == payload(size)
        assert await ws.close()
        assert ws.close_code == aiohttp.WSCloseCode.OK


@SECURE
@on_loop
async def test_many(loop, secure):
    """Each gets its own messages, in order, while all send without waiting for an answer."""

    async def talk(number):
        async with s.session.ws_connect("/") as ws:
            for part in range(50):
                await ws.send_str(f"{number} {part}")
            return [await ws.receive_str() for _ in range(50)]

    async with site(echo, secure) as s:
        got = await asyncio.gather(*map(talk, range(20)))
    assert got == [[f"{number} {part}" for part in range(50)] for number in range(20)]


@on_loop
async def test_compression(loop):
    """permessage-deflate, agreed on in the handshake; small and large messages."""
    async with site(echo) as s, s.session.ws_connect("/", compress=15, max_msg_size=0) as ws:
        assert ws.compress == 15
        for size in (1, 1000, MEGABYTE, 5 * MEGABYTE):
            await ws.send_bytes(b"again " * (size // 6))
            assert await ws.receive_bytes() == b"again " * (size // 6)


@on_loop
async def test_ping_and_pong(loop):
    """Either side's ping is answered; by itself, or by who switched that off."""

    async def pings(request):
        ws = web.WebSocketResponse(autoping=False)
        await ws.prepare(request)
        await ws.ping(b"from the server")
        # In either order: the client does not wait for the server's.
        both = [await ws.receive(), await ws.receive()]
        assert {(message.type, bytes(message.data)) for message in both} == {
            (aiohttp.WSMsgType.PONG, b"from the server"),
            (aiohttp.WSMsgType.PING, b"from the client"),
        }
        await ws.pong(b"from the client")
        await ws.send_str("done")
        await ws.close()
        return ws

    async with site(pings) as s, s.session.ws_connect("/") as ws:
        await ws.ping(b"from the client")
        assert await ws.receive_str() == "done"


@pytest.mark.slow
@on_loop
async def test_heartbeat(loop):
    """A peer that sends no pong is given up, and its handler told so."""
    ended = loop.create_future()

    async def waits(request):
        ws = web.WebSocketResponse(heartbeat=0.1)
        await ws.prepare(request)
        ended.set_result((await ws.receive()).type)
        return ws

    async with site(waits) as s, s.session.ws_connect("/", autoping=False) as ws:
        assert (await ws.receive()).type is aiohttp.WSMsgType.PING
        assert await ended in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


@SECURE
@on_loop
async def test_the_server_closes(loop, secure):
    """The client sees code and reason; the server's handler ends."""

    async def bye(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close(code=4000, message=b"bye")
        return ws

    async with site(bye, secure) as s, s.session.ws_connect("/") as ws:
        message = await ws.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4000)
        assert message.extra == "bye"


@on_loop
async def test_the_client_closes(loop):
    """The server's receive ends, and it knows the client's code."""
    code = loop.create_future()

    async def waits(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        code.set_result(ws.close_code)
        return ws

    async with site(waits) as s:
        async with s.session.ws_connect("/") as ws:
            await ws.close(code=4001)
        assert await code == 4001


@SECURE
@on_loop
async def test_a_client_that_vanishes(loop, secure):
    """Without a closing handshake: 1006, at once."""
    code = loop.create_future()

    async def waits(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        code.set_result(ws.close_code)
        return ws

    async with site(waits, secure) as s, s.session.ws_connect("/") as ws:
        ws._response.connection.transport.abort()
        assert await code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE


@on_loop
async def test_shutdown_with_open_websockets(loop):
    """Their handlers are cancelled when the time is up, and each client sees the end."""
    entered = asyncio.Semaphore(0)

    async def waits(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        entered.release()
        await ws.receive()
        return ws

    async with site(waits) as s:
        clients = [await s.session.ws_connect("/") for _ in range(5)]
        for _ in clients:
            await entered.acquire()
        await s.runner.cleanup()
        ended = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        for ws in clients:
            assert (await ws.receive()).type in ended
            await ws.close()
