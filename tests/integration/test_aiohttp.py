"""aiohttp: its server and its client, on veloop and on asyncio.

The load is put on a server in a child process, started as README tells. In the other tests server
and client share one process and one loop, so that conftest's checks see what either leaves behind.
"""

import asyncio
import contextlib
import functools
import io
import signal
import socket

import load
import pytest
from payload import MEGABYTE, Checksum, chunks, payload
from running import on_loop
from started_servers import CONNECTIONS, REQUESTS, Server, get_head, read_response, read_to_end

from helpers import LOOPS, import_veloop, refusing_address

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install '.[test]')")
web = pytest.importorskip("aiohttp.web")

from aiohttp_site import Site, query  # noqa: E402

LARGE = 10 * MEGABYTE
# More than the kernel can have in the buffers of one connection.
TOO_LARGE_FOR_BUFFERS = 64 * MEGABYTE


# ------------------------------------------------------------ a server of its own, under load


@pytest.fixture(scope="module", params=LOOPS)
def server(request):
    if request.param == "veloop":
        import_veloop()
    with Server(request.param, "aiohttp_server.py", request.param) as server:
        server.kind = request.param
        yield server
        assert server.stop(signal.SIGTERM) == 0
        assert not server.complaints(), server.output


@pytest.mark.slow
def test_the_loop_in_use(server):
    """`run_app(loop=...)` takes the loop that it is given."""
    assert server.ask("/loop").startswith(f"{server.kind}.".encode())


@pytest.mark.slow
def test_load(server):
    """2,000 requests over 50 keep-alive connections; VELOOP_LOAD=20000 for the acceptance run."""
    result = load.run(server.url, REQUESTS, CONNECTIONS)
    assert result.ok, result.errors
    print(f"aiohttp on {server.kind}: {result}")


@pytest.mark.slow
def test_load_with_bodies(server):
    result = load.run(server.url, 200, 20, body=200_000)
    assert result.ok, result.errors


@pytest.mark.slow
def test_load_with_large_bodies(server):
    result = load.run(server.url, 4, 2, body=LARGE)
    assert result.ok, result.errors


@pytest.mark.slow
def test_load_in_debug_mode(loop_kind):
    """asyncio's debug mode finds nothing to complain of."""
    options = ("-X", "dev", "-W", "error")
    with Server(loop_kind, "aiohttp_server.py", loop_kind, options=options) as server:
        result = load.run(server.url, 500, CONNECTIONS)
        assert result.ok, result.errors
        assert server.stop(signal.SIGTERM) == 0
        assert not server.complaints(), server.output


@pytest.mark.slow
def test_pipelined_requests(server):
    """Answers come in the order of the requests, that all arrived at once."""
    with server.connect() as sock:
        requests = [get_head(f"/?{number}") for number in range(99)]
        sock.sendall(b"".join([*requests, get_head("/?99", "Connection: close")]))
        answers = read_to_end(sock)
    bodies = [answer.rpartition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"%d" % number for number in range(100)]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_a_signal_stops_the_server(loop_kind, signum):
    """`run_app` ends in order, with an idle keep-alive connection, and with exit code 0."""
    with (
        Server(loop_kind, "aiohttp_server.py", loop_kind) as server,
        server.connect() as idle,
    ):
        idle.sendall(get_head("/?idle"))
        assert read_response(idle)[1] == b"idle"
        server.signal(signum)
        assert read_to_end(idle) == b""
        assert server.wait() == 0
        assert not server.complaints(), server.output


# ------------------------------------------------------------ server and client on one loop


class Held:
    """A handler that answers when the test lets it, and notes how it ended."""

    def __init__(self):
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def handle(self, request):
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()
        return web.Response(text="released")


@on_loop
async def test_a_request(loop):
    async with Site(web.get("/", query)) as site, site.session.get("/?hello") as response:
        assert response.status == 200
        assert await response.text() == "hello"


@on_loop
async def test_a_host_by_name(loop):
    """The client's resolver is `loop.getaddrinfo`, its connection happy eyeballs."""
    async with (
        Site(web.get("/", query)) as site,
        site.session.get(f"http://localhost:{site.port}/?by-name") as response,
    ):
        assert await response.text() == "by-name"


@pytest.mark.slow
@on_loop
async def test_many_concurrent_requests(loop):
    """200 at a time, each on a connection of its own, held until all have arrived."""
    everybody = asyncio.Barrier(200)

    async def meet(request):
        await everybody.wait()
        return web.Response(text=request.query_string)

    async def ask(number):
        async with site.session.get(f"/?{number}") as response:
            return await response.text()

    connector = functools.partial(aiohttp.TCPConnector, limit=200)
    async with Site(web.get("/", meet), connector=connector) as site:
        answers = await asyncio.gather(*map(ask, range(200)))
        assert answers == [str(number) for number in range(200)]
        # And again, on the connections that were kept.
        answers = await asyncio.gather(*map(ask, range(200)))
        assert answers == [str(number) for number in range(200)]


# ------------------------------------------------------------ streaming


async def summed(stream):
    checksum = Checksum()
    async for part in stream.iter_any():
        checksum.feed(part)
    return checksum


async def upload(request):
    return web.Response(text=str(await summed(request.content)))


@pytest.mark.parametrize("size", [0, 1, LARGE])
@on_loop
async def test_upload(loop, size):
    async with Site(web.post("/", upload)) as site:
        async with site.session.post("/", data=io.BytesIO(payload(size))) as response:
            assert await response.text() == str(Checksum(payload(size)))


@on_loop
async def test_streamed_upload(loop):
    """Chunked, from an async generator."""

    async def parts():
        for part in chunks(LARGE):
            yield part

    async with Site(web.post("/", upload)) as site:
        async with site.session.post("/", data=parts()) as response:
            assert await response.text() == str(Checksum(payload(LARGE)))


class Download:
    """A handler that streams so many bytes; `sent` tells how far it is."""

    def __init__(self, size):
        self.size = size
        self.sent = 0

    async def handle(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks(self.size):
            await response.write(chunk)
            self.sent += len(chunk)
        await response.write_eof()
        return response


@on_loop
async def test_streamed_download(loop):
    async with (
        Site(web.get("/", Download(LARGE).handle)) as site,
        site.session.get("/") as response,
    ):
        assert str(await summed(response.content)) == str(Checksum(payload(LARGE)))


async def settled(counter, site):
    """The counter's value, once 50 requests in a row left it unchanged."""
    value, same = None, 0
    while same < 50:
        async with site.session.get("/?turn") as response:
            await response.read()
        before, value = value, counter()
        same = same + 1 if value == before else 0
    return value


@pytest.mark.slow
@on_loop
async def test_a_client_that_does_not_read_holds_up_the_server(loop):
    """`write` waits, and the body is whole when the client reads on."""
    download = Download(TOO_LARGE_FOR_BUFFERS)
    async with Site(web.get("/", query), web.get("/download", download.handle)) as site:
        async with site.session.get("/download") as response:
            assert 0 < await settled(lambda: download.sent, site) < TOO_LARGE_FOR_BUFFERS
            whole = await summed(response.content)
    assert str(whole) == str(Checksum(payload(TOO_LARGE_FOR_BUFFERS)))


@pytest.mark.slow
@on_loop
async def test_a_server_that_does_not_read_holds_up_the_client(loop):
    release = asyncio.Event()
    sent = 0

    async def later(request):
        await release.wait()
        return await upload(request)

    async def parts():
        nonlocal sent
        for part in chunks(TOO_LARGE_FOR_BUFFERS):
            yield part
            sent += len(part)

    async def post():
        async with site.session.post("/", data=parts()) as response:
            return await response.text()

    async with Site(web.get("/", query), web.post("/", later)) as site:
        answer = asyncio.create_task(post())
        assert 0 < await settled(lambda: sent, site) < TOO_LARGE_FOR_BUFFERS
        release.set()
        assert await answer == str(Checksum(payload(TOO_LARGE_FOR_BUFFERS)))


# ------------------------------------------------------------ timeouts, cancellation, errors


@on_loop
async def test_the_client_times_out(loop):
    """The request ends with TimeoutError, and the server learns that the client is gone."""
    held = Held()
    timeout = aiohttp.ClientTimeout(total=0.05)
    async with Site(web.get("/", held.handle), handler_cancellation=True) as site:
        with pytest.raises(asyncio.TimeoutError):
            await site.session.get("/", timeout=timeout)
        # The handler may never have been reached on a slow machine; then nothing is to be ended.
        if held.entered.is_set():
            await held.ended.wait()
            assert held.cancelled


@on_loop
async def test_a_read_timeout(loop):
    """The head came in time, the body does not."""
    release = asyncio.Event()

    async def half(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        await release.wait()
        return response

    timeout = aiohttp.ClientTimeout(sock_read=0.1)
    async with Site(web.get("/", half), timeout=timeout) as site:
        # All of it in here: on a slow machine already the head may be late.
        with pytest.raises(aiohttp.SocketTimeoutError):
            async with site.session.get("/") as response:
                assert await response.content.readexactly(4) == b"half"
                await response.content.read()
        release.set()


@on_loop
async def test_a_cancelled_request(loop):
    """Cancelling the task closes the connection: the handler is cancelled, others go on."""
    held = Held()
    routes = web.get("/held", held.handle), web.get("/", query)
    async with Site(*routes, handler_cancellation=True) as site:
        request = asyncio.create_task(site.session.get("/held"))
        await held.entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await held.ended.wait()
        assert held.cancelled
        async with site.session.get("/?next") as response:
            assert await response.text() == "next"


@on_loop
async def test_a_cancelled_connect(loop):
    """Cancelled while it connects to somebody who never accepts: no socket is left."""
    with contextlib.closing(FullListener()) as listener:
        url = "http://{}:{}/".format(*listener.address)
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(session.get(url))
            # The SYN is out after a few turns of the loop, or not yet: both must be fine.
            for _ in range(10):
                await asyncio.sleep(0)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request


class FullListener:
    """A listener whose queue is full, so that the next connection neither comes about nor fails."""

    def __init__(self):
        self._sockets = [socket.socket()]
        self._sockets[0].bind(("127.0.0.1", 0))
        self._sockets[0].listen(0)
        self.address = self._sockets[0].getsockname()
        for _ in range(2):
            sock = socket.socket()
            self._sockets.append(sock)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(self.address)

    def close(self):
        for sock in self._sockets:
            sock.close()


@on_loop
async def test_connection_refused(loop):
    """aiohttp's error, which is an OSError with the system's number and its exception as cause."""
    async with aiohttp.ClientSession() as session:
        with refusing_address() as (host, port):
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(f"http://{host}:{port}/")
    assert isinstance(caught.value.os_error, ConnectionRefusedError)
    assert caught.value.errno == caught.value.os_error.errno
    assert (caught.value.host, caught.value.port) == (host, port)


@on_loop
async def test_a_name_that_does_not_resolve(loop):
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await session.get("http://no-such-host.invalid/")


@on_loop
async def test_the_server_drops_the_connection(loop):
    """Before an answer: ServerDisconnectedError. In mid-body: ClientPayloadError."""

    async def drop(request):
        request.transport.abort()
        return web.Response()

    async def drop_body(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        request.transport.close()
        return response

    async with Site(web.post("/", drop), web.get("/body", drop_body)) as site:
        # A POST, because a GET would be tried once more.
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await site.session.post("/")
        async with site.session.get("/body") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


@pytest.mark.parametrize("kind, status", [(web.HTTPConflict, 409), (ValueError, 500)])
@on_loop
async def test_a_handler_that_raises(loop, kind, status):
    """Its status for this request, and the next one is served."""

    async def fail(request):
        raise kind

    async with Site(web.get("/", query), web.get("/fail", fail)) as site:
        async with site.session.get("/fail") as response:
            await response.read()
            assert response.status == status
        async with site.session.get("/?next") as response:
            assert await response.text() == "next"


# ------------------------------------------------------------ shutdown


@on_loop
async def test_shutdown_with_live_keep_alive_connections(loop):
    """Cleanup closes what is idle; a client that asks once more finds nobody."""
    async with Site(web.get("/", query)) as site:
        answers = await asyncio.gather(*(site.session.get(f"/?{n}") for n in range(10)))
        for response in answers:
            await response.read()
        await site.runner.cleanup()
        with pytest.raises(aiohttp.ClientConnectorError):
            await site.session.get("/?late")


@on_loop
async def test_shutdown_waits_for_a_request(loop):
    """A request under way is answered within the shutdown timeout."""
    held = Held()
    async with Site(web.get("/", held.handle), shutdown_timeout=20) as site:
        request = asyncio.create_task(site.session.get("/"))
        await held.entered.wait()
        cleanup = asyncio.create_task(site.runner.cleanup())
        while site.runner.sites:  # it listens
            await asyncio.sleep(0)
        held.release.set()
        async with await request as response:
            assert await response.text() == "released"
        await cleanup


@on_loop
async def test_shutdown_does_not_wait_for_ever(loop):
    """After the timeout the handler is cancelled, and its client sees the connection end."""
    held = Held()
    async with Site(web.get("/", held.handle), shutdown_timeout=0.01) as site:
        request = asyncio.create_task(site.session.get("/"))
        await held.entered.wait()
        await site.runner.cleanup()
        await held.ended.wait()
        assert held.cancelled
        with pytest.raises(aiohttp.ClientError):
            await request
