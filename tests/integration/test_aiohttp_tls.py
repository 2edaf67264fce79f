"""aiohttp over TLS and over Unix sockets, and its static files, on veloop and on asyncio."""

import asyncio
import functools
import ssl

import pytest
from payload import MEGABYTE, Checksum, chunks, payload
from running import on_loop

from certificates import client_context, server_context

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install '.[test]')")
web = pytest.importorskip("aiohttp.web")

from aiohttp_site import Site, query  # noqa: E402

LARGE = 10 * MEGABYTE


def secure_site(*routes, server=None, client=None, **options):
    connector = functools.partial(aiohttp.TCPConnector, limit=50, ssl=client or client_context())
    return Site(*routes, tls=server or server_context(), connector=connector, **options)


def unix_site(path, *routes):
    return Site(*routes, unix_path=path, connector=functools.partial(aiohttp.UnixConnector, path))


async def upload(request):
    checksum = Checksum()
    async for part in request.content.iter_any():
        checksum.feed(part)
    return web.Response(text=str(checksum))


async def download(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for chunk in chunks(LARGE):
        await response.write(chunk)
    return response


async def up_and_down(session):
    """10 MB each way, streamed."""

    async def parts():
        for part in chunks(LARGE):
            yield part

    async with session.post("/", data=parts()) as response:
        assert await response.text() == str(Checksum(payload(LARGE)))
    async with session.get("/large") as response:
        assert await response.read() == payload(LARGE)


BOTH_WAYS = (web.post("/", upload), web.get("/large", download))


# ------------------------------------------------------------ TLS


@on_loop
async def test_requests_over_tls(loop):
    """By address and by name; server and client see each other's side of it."""

    async def describe(request):
        assert request.secure
        assert request.transport.get_extra_info("ssl_object").server_side
        response = web.StreamResponse()
        await response.prepare(request)
        # The client has no connection to look at any more once the answer is complete.
        await looked_at.acquire()
        await response.write(request.transport.get_extra_info("cipher")[0].encode())
        return response

    looked_at = asyncio.Semaphore(0)
    async with secure_site(web.get("/", describe)) as site:
        for host in ("127.0.0.1", "localhost"):
            async with site.session.get(f"https://{host}:{site.port}/") as response:
                transport = response.connection.transport
                subject = dict(*transport.get_extra_info("peercert")["subject"])
                assert subject == {"commonName": "localhost"}
                cipher = transport.get_extra_info("cipher")[0]
                looked_at.release()
                assert await response.text() == cipher


@on_loop
async def test_large_bodies_over_tls(loop):
    async with secure_site(*BOTH_WAYS) as site:
        await up_and_down(site.session)


@pytest.mark.slow
@on_loop
async def test_many_concurrent_requests_over_tls(loop):
    """50 handshakes at once, then the same connections again."""

    async def ask(number):
        async with site.session.get(f"/?{number}") as response:
            return await response.text()

    async with secure_site(web.get("/", query)) as site:
        for _ in range(2):
            answers = await asyncio.gather(*map(ask, range(100)))
            assert answers == [str(number) for number in range(100)]


@pytest.mark.parametrize("certificate", ["unknown", "othername", "expired"])
@on_loop
async def test_a_certificate_that_is_not_good_enough(loop, certificate):
    """aiohttp's error with OpenSSL's inside; the server goes on."""
    async with secure_site(web.get("/", query), server=server_context(certificate)) as site:
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
            await site.session.get(f"https://localhost:{site.port}/")
        assert isinstance(caught.value.certificate_error, ssl.SSLCertVerificationError)
        async with site.session.get("/?next", ssl=False) as response:
            assert await response.text() == "next"


@on_loop
async def test_client_certificates(loop):
    """The server sees whose it is; who has none is refused."""

    async def name(request):
        subject = dict(*request.transport.get_extra_info("peercert")["subject"])
        return web.Response(text=subject["commonName"])

    demanding = server_context(client_certificate=True)
    async with secure_site(web.get("/", name), server=demanding) as site:
        with pytest.raises(aiohttp.ClientError):
            await site.session.get("/")
        async with site.session.get("/", ssl=client_context("client")) as response:
            assert await response.text() == "veloop tests client"


@on_loop
async def test_plain_http_to_a_tls_server(loop):
    """Whoever does so is hung up on; the next client is served."""
    async with secure_site(web.get("/", query)) as site:
        with pytest.raises(aiohttp.ClientError):
            await site.session.get(f"http://127.0.0.1:{site.port}/")
        async with site.session.get("/?next") as response:
            assert await response.text() == "next"


@on_loop
async def test_tls_shutdown_waits_for_a_request(loop):
    """A request under way is answered within the shutdown timeout; idle connections are closed."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def held(request):
        entered.set()
        await release.wait()
        return web.Response(text="released")

    routes = web.get("/", query), web.get("/held", held)
    async with secure_site(*routes, shutdown_timeout=20) as site:
        async with site.session.get("/?idle") as response:
            await response.read()
        request = asyncio.create_task(site.session.get("/held"))
        await entered.wait()
        cleanup = asyncio.create_task(site.runner.cleanup())
        while site.runner.sites:  # it listens
            await asyncio.sleep(0)
        release.set()
        async with await request as response:
            assert await response.text() == "released"
        await cleanup


@on_loop
async def test_a_cancelled_request_over_tls(loop):
    """In mid-handshake, and in mid-answer: the connection is closed, the next request works."""
    entered, ended = asyncio.Event(), asyncio.Event()

    async def held(request):
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    routes = web.get("/", query), web.get("/held", held)
    async with secure_site(*routes, handler_cancellation=True) as site:
        for turns in range(12):
            request = asyncio.create_task(site.session.get("/?early"))
            for _ in range(turns):
                await asyncio.sleep(0)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                (await request).release()
                raise asyncio.CancelledError  # it was that fast
        request = asyncio.create_task(site.session.get("/held"))
        await entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await ended.wait()
        async with site.session.get("/?next") as response:
            assert await response.text() == "next"


# ------------------------------------------------------------ Unix sockets


@on_loop
async def test_unix_sockets(loop, tmp_path):
    """Server and connector; the name is gone when the server is."""
    path = tmp_path / "socket"
    async with unix_site(str(path), web.get("/", query), *BOTH_WAYS) as site:
        async with site.session.get("/?hello") as response:
            assert await response.text() == "hello"
        await up_and_down(site.session)
    assert not path.exists() or path.is_socket()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://localhost/")


# ------------------------------------------------------------ static files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.txt").write_text("small")
    (tmp_path / "large.bin").write_bytes(payload(LARGE))
    (tmp_path / "empty").touch()
    return tmp_path


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@on_loop
async def test_static_files(loop, folder, secure):
    """By `loop.sendfile`, whole and in ranges, on one connection; over TLS by its fallback."""
    make = secure_site if secure else Site
    async with make(web.static("/files", folder)) as site:
        for name in ("small.txt", "empty", "large.bin", "small.txt"):
            async with site.session.get(f"/files/{name}") as response:
                assert response.status == 200
                assert await response.read() == (folder / name).read_bytes()
        async with site.session.get(
            "/files/large.bin", headers={"Range": "bytes=100-"}
        ) as response:
            assert response.status == 206
            assert await response.read() == payload(LARGE)[100:]
        async with site.session.get("/files/missing") as response:
            assert response.status == 404


@on_loop
async def test_aiohttp_uses_sendfile(loop, folder, monkeypatch):
    """So that the test above tests what it says."""
    calls = []
    original = type(loop).sendfile

    async def noted(self, *args, **kwargs):
        calls.append(args)
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(type(loop), "sendfile", noted)
    async with Site(web.static("/files", folder)) as site:
        async with site.session.get("/files/large.bin") as response:
            assert await response.read() == payload(LARGE)
    assert len(calls) == 1


@on_loop
async def test_concurrent_static_files(loop, folder):
    """Several readers of one large file, one of which leaves in the middle."""

    async def read(number):
        async with site.session.get("/files/large.bin") as response:
            if number == 0:
                await response.content.readexactly(1000)
                response.close()
                return None
            return await response.read()

    async with Site(web.static("/files", folder)) as site:
        first, *others = await asyncio.gather(*map(read, range(6)))
    assert first is None
    assert all(other == payload(LARGE) for other in others)
