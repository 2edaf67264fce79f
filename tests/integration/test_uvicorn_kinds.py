"""uvicorn with TLS, on a Unix socket, with worker processes, and with WebSockets.

What test_uvicorn.py asks of the plain server is not asked again, but for a few things that the
transport below makes different.
"""

import asyncio
import contextlib
import http.client
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from payload import MEGABYTE, Checksum, payload
from running import on_loop
from started_servers import ask, get_head, post_head, read_response, read_to_end
from uvicorn_server import stock_exit_code, uvicorn

from certificates import CA, CERTS, client_context
from helpers import LOOPS, PATIENCE, PYPY, WINDOWS, import_veloop

pytest.importorskip("uvicorn", reason="uvicorn is not installed (pip install '.[test]')")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WINDOWS, reason="started and stopped as on Unix"),
]

# One file has the key and the certificate.
TLS = ["--ssl-keyfile", str(CERTS / "server.pem"), "--ssl-certfile", str(CERTS / "server.pem")]
LARGE = 10 * MEGABYTE
# More than the kernel and TLS can have in the buffers of one connection.
TOO_LARGE_FOR_BUFFERS = 64 * MEGABYTE
# PyPy's ssl wants OpenSSL's words for an error of the system, and there are none.
REFUSED = (OSError, RuntimeError) if PYPY else (OSError,)


# ------------------------------------------------------------ TLS, Unix sockets


@pytest.fixture(
    scope="module", params=[(k, how) for how in ("tls", "unix") for k in LOOPS], ids="-".join
)
def server(request, tmp_path_factory):
    """One for all tests that leave it as it was."""
    kind, how = request.param
    if kind == "veloop":
        import_veloop()
    path = tmp_path_factory.mktemp("uvicorn") / "socket"
    options = TLS if how == "tls" else ["--uds", str(path)]
    with uvicorn(kind, *options) as server:
        server.kind, server.how = kind, how
        yield server
        assert server.stop(signal.SIGTERM) == stock_exit_code(signal.SIGTERM)
        assert not server.complaints(), server.output
    # Servers remove the name where that is asyncio's default, from 3.13 on.
    if sys.version_info >= (3, 13):
        assert not path.exists()


def test_the_loop_in_use(server):
    assert server.ask("/loop").startswith(f"{server.kind}.".encode())
    assert server.secure == (server.how == "tls")


def test_keep_alive_connections(server):
    """20 at a time, each with 25 numbered requests."""

    def talk(number):
        with server.client() as client:
            everybody.wait(20)
            return [ask(client, f"/?{number}-{part}").decode() for part in range(25)]

    everybody = threading.Barrier(20)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(talk, range(20)))
    assert answers == [[f"{number}-{part}" for part in range(25)] for number in range(20)]


def test_large_bodies(server):
    """Up, down, and both ways."""
    data = payload(LARGE)
    assert server.ask("/upload", data) == str(Checksum(data)).encode()
    assert server.ask(f"/download?{LARGE}") == data
    assert server.ask("/", data) == data


def test_a_slow_reader_holds_up_the_application(server):
    """`send` waits when the peer does not read, and the body is whole when it does again."""
    with server.client() as other, server.connect(receive_buffer=65536) as sock:
        before = server.state()["sent"]
        sock.sendall(get_head(f"/download?{TOO_LARGE_FOR_BUFFERS}", "Connection: close"))
        sent = server.settled("sent", other) - before
        assert 0 < sent < TOO_LARGE_FOR_BUFFERS

        received, head = Checksum(), b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        while data := sock.recv(MEGABYTE):
            received.feed(data)
    assert str(received) == str(Checksum(payload(TOO_LARGE_FOR_BUFFERS)))


def test_the_client_leaves(server):
    """In mid-upload, without a word: the application hears of it, and others are served."""
    before = server.state()
    with server.connect() as sock:
        sock.sendall(post_head("/upload", MEGABYTE) + payload(100_000))
        size = before["received"] + 100_000
        server.wait_until(lambda state: state["received"] == size, "in the middle of the body")
    gone = before["disconnects"] + 1
    server.wait_until(lambda state: state["disconnects"] == gone, "told of the disconnect")
    assert server.ask("/?next") == b"next"


@pytest.mark.parametrize("options", [TLS, ["--uds"]], ids=["tls", "unix"])
def test_graceful_shutdown(loop_kind, tmp_path, options):
    """Idle connections are closed, a request under way is answered, then the process ends."""
    if options == ["--uds"]:
        options = ["--uds", str(tmp_path / "socket")]
    with (
        uvicorn(loop_kind, *options) as server,
        server.connect() as idle,
        server.connect() as busy,
    ):
        idle.sendall(get_head("/?idle"))
        assert read_response(idle)[1] == b"idle"
        busy.sendall(post_head("/upload", 6) + b"abc")
        server.wait_until(lambda state: state["received"] == 3, "reading the body")
        server.signal(signal.SIGTERM)
        assert read_to_end(idle) == b""
        # Over TLS the server waits for the client to say so too.
        idle.close()
        busy.sendall(b"def")
        assert read_response(busy)[1] == str(Checksum(b"abcdef")).encode()
        assert read_to_end(busy) == b""
        busy.close()
        assert server.wait() == stock_exit_code(signal.SIGTERM)
        assert "application stopped" in server.lines
        assert not server.complaints(), server.output


def test_client_certificates(loop_kind):
    """`--ssl-ca-certs` and `--ssl-cert-reqs 2`: nobody without one is served."""
    demands = ["--ssl-ca-certs", str(CA), "--ssl-cert-reqs", "2"]
    with uvicorn(loop_kind, *TLS, *demands) as server:
        with server.connect() as sock:
            # TLS 1.3: the client learns of it when it reads, from an alert or from the end.
            with contextlib.suppress(*REFUSED):
                sock.sendall(get_head("/?nobody"))
                assert read_to_end(sock) == b""
        server.stop(signal.SIGTERM)
        assert not server.complaints(), server.output


# ------------------------------------------------------------ workers


shares_its_listener = pytest.mark.stock_unless(
    PYPY,
    "PyPy has a descriptor block when it makes a socket of it; that of the new worker is the other "
    "one's as well, which asyncio has wait in accept()",
)


def both_workers(server):
    """Their process ids, once both have answered. They tell nobody when they listen."""
    pids, deadline = set(), time.monotonic() + PATIENCE
    while len(pids) < 2:
        assert time.monotonic() < deadline, server.output
        try:
            pids.add(int(server.ask("/pid")))
        except (ConnectionError, http.client.BadStatusLine):
            time.sleep(0.01)
    return pids


@shares_its_listener
def test_workers(loop_kind):
    """Two processes share one listener; a signal ends them all."""
    with uvicorn(loop_kind, "--workers", "2") as server:
        pids = both_workers(server)
        for _ in range(20):
            assert server.ask("/loop").startswith(f"{loop_kind}.".encode())
        assert server.ask("/upload", payload(LARGE)) == str(Checksum(payload(LARGE))).encode()
        assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
        # uvicorn's parent process leaves it to the interpreter's end to close the listener.
        listener = f"laddr={server.address}>"
        assert not [line for line in server.complaints() if listener not in line], server.output
        assert server.lines.count("application stopped") == 2
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@shares_its_listener
def test_a_worker_that_dies_is_replaced(loop_kind):
    with uvicorn(loop_kind, "--workers", "2") as server:
        victim = min(both_workers(server))
        os.kill(victim, signal.SIGKILL)
        server.wait_for(rf"Child process \[{victim}\] died")
        # Both are there again, and neither is the one that died.
        pids = both_workers(server)
        assert victim not in pids
        server.stop(signal.SIGTERM)


# ------------------------------------------------------------ WebSockets

# uvicorn deprecates its older implementation, which is on what websockets itself calls legacy.
LEGACY = [
    *("-W", "ignore:The `websockets` implementation is deprecated"),
    *("-W", "ignore:websockets.legacy is deprecated:DeprecationWarning"),
    *("-W", "ignore:remove second argument of ws_handler:DeprecationWarning"),
]


@pytest.fixture(params=["websockets", "websockets-sansio"])
def ws_server(request, loop_kind):
    pytest.importorskip("websockets", reason="websockets is not installed (pip install '.[test]')")
    with uvicorn(loop_kind, "--ws", request.param, options=["-W", "error", *LEGACY]) as server:
        yield server
        server.stop(signal.SIGTERM)
        assert not server.complaints(), server.output


@on_loop
async def test_websocket_echo(loop, ws_server):
    """Several clients of the `websockets` library, small and 1 MB messages, texts and bytes."""
    from websockets.asyncio.client import connect

    async def talk(number):
        async with connect(uri, max_size=None) as ws:
            for part in range(20):
                await ws.send(f"{number} {part}")
                assert await ws.recv() == f"{number} {part}"
            await ws.send(payload(MEGABYTE))
            assert await ws.recv() == payload(MEGABYTE)
            await ws.ping()

    uri = ws_server.url.replace("http", "ws")
    await asyncio.gather(*map(talk, range(10)))


@on_loop
async def test_websocket_closing(loop, ws_server):
    """Either side's code reaches the other."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    uri = ws_server.url.replace("http", "ws")
    async with connect(uri) as ws:
        await ws.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "told to")
    async with connect(uri) as ws:
        await ws.close(4001)
    await loop.run_in_executor(None, ws_server.wait_for, "websocket closed: 4001")


# ------------------------------------------------------------ httpx


@pytest.fixture
def tls_server(loop_kind):
    with uvicorn(loop_kind, *TLS) as server:
        yield server
        server.stop(signal.SIGTERM)
        assert not server.complaints(), server.output


@on_loop
async def test_httpx_over_tls(loop, tls_server):
    """httpx, which is on anyio: many requests at once, a large body each way, a bad certificate."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed (pip install '.[test]')")

    async with httpx.AsyncClient(base_url=tls_server.url, verify=client_context()) as client:
        answers = await asyncio.gather(*(client.get(f"/?{number}") for number in range(50)))
        assert [answer.text for answer in answers] == [str(number) for number in range(50)]
        answer = await client.post("/", content=payload(LARGE))
        assert answer.content == payload(LARGE)
        async with client.stream("GET", f"/download?{LARGE}") as answer:
            received = Checksum()
            async for part in answer.aiter_bytes():
                received.feed(part)
        assert str(received) == str(Checksum(payload(LARGE)))
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(tls_server.url)
