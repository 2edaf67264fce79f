"""uvicorn with httptools, started by its command line on veloop, and on asyncio as the control.

What is asked here is what a user sees from outside: answers, log lines, exit codes.
"""

import errno
import os
import re
import signal
import socket
import struct

import load
import pytest
from payload import MEGABYTE, Checksum, payload
from started_servers import (
    CONNECTIONS,
    REQUESTS,
    ask,
    get_head,
    post_head,
    read_response,
    read_to_end,
)
from uvicorn_server import stock_exit_code, uvicorn

from helpers import LOOPS, Background, import_veloop

pytest.importorskip("uvicorn", reason="uvicorn is not installed (pip install '.[test]')")

pytestmark = pytest.mark.slow  # each server takes a third of a second to start

LARGE = 10 * MEGABYTE
# More than the kernel can have in the buffers of one connection.
TOO_LARGE_FOR_BUFFERS = 64 * MEGABYTE


@pytest.fixture(scope="module", params=LOOPS)
def common_server(request):
    """One server for all tests that leave it as it was."""
    if request.param == "veloop":
        import_veloop()
    with uvicorn(request.param) as server:
        server.kind = request.param
        # The smallest of several: a connection that was just closed may still be counted.
        server.idle_fds = min(server.state()["fds"] for _ in range(5))
        yield server
        assert server.stop(signal.SIGTERM) == stock_exit_code(signal.SIGTERM)
        assert server.lines[-1].startswith("INFO:     Finished server process")
        assert not server.complaints(), server.output


@pytest.fixture
def server(common_server):
    """The same, and nothing stays open there."""
    yield common_server
    idle = common_server.idle_fds
    common_server.wait_until(lambda state: state["fds"] <= idle, f"back at {idle} descriptors")
    assert not common_server.complaints(), common_server.output


def loop_module(kind):
    return {"veloop": b"veloop.", "asyncio": b"asyncio."}[kind]


# ------------------------------------------------------------ load


def test_the_loop_in_use(server):
    """uvicorn falls back to nothing: the application itself runs on the loop asked for."""
    assert server.ask("/loop").startswith(loop_module(server.kind))


def test_load(server):
    """2,000 requests over 50 keep-alive connections; VELOOP_LOAD=20000 for the acceptance run."""
    result = load.run(server.url, REQUESTS, CONNECTIONS)
    assert result.ok, result.errors
    print(f"uvicorn on {server.kind}: {result}")


def test_load_with_bodies(server):
    """Requests and answers of many reads each, many at a time."""
    result = load.run(server.url, 200, 20, body=200_000)
    assert result.ok, result.errors


def test_load_on_short_connections(server):
    """Each request on a new connection."""
    for round_ in range(20):
        result = load.run(server.url, 20, 20)
        assert result.ok, (round_, result.errors)


def test_load_in_debug_mode(loop_kind):
    """asyncio's debug mode finds nothing to complain of."""
    with uvicorn(loop_kind, options=("-X", "dev", "-W", "error")) as server:
        result = load.run(server.url, 500, CONNECTIONS)
        assert result.ok, result.errors
        server.stop(signal.SIGTERM)
        assert not server.complaints(), server.output


# ------------------------------------------------------------ large bodies


def test_a_large_body_up(server):
    data = payload(LARGE)
    assert server.ask("/upload", data) == str(Checksum(data)).encode()


def test_a_large_chunked_body_up(server):
    """Without a Content-Length: the body's end is a chunk of its own."""
    data = payload(LARGE)
    pieces = (data[i : i + 100_000] for i in range(0, LARGE, 100_000))
    assert server.ask("/upload", pieces) == str(Checksum(data)).encode()


def test_a_large_body_down(server):
    assert server.ask(f"/download?{LARGE}") == payload(LARGE)


def test_large_bodies_both_ways(server):
    result = load.run(server.url, 4, 2, body=LARGE)
    assert result.ok, result.errors


def test_a_slow_reader_holds_up_the_application(server):
    """`send` waits when the peer does not read, and the body is whole when it does again."""
    with server.client() as other, server.connect(receive_buffer=65536) as sock:
        before = server.state()["sent"]
        sock.sendall(get_head(f"/download?{TOO_LARGE_FOR_BUFFERS}", "Connection: close"))
        sent = server.settled("sent", other) - before
        assert 0 < sent < TOO_LARGE_FOR_BUFFERS

        received = Checksum()
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        # Small reads first, which let the server on by little.
        while data := sock.recv(1000 if received.size < 2 * MEGABYTE else MEGABYTE):
            received.feed(data)
    assert str(received) == str(Checksum(payload(TOO_LARGE_FOR_BUFFERS)))


def test_a_slow_application_holds_up_the_client(server):
    """The server stops reading when the application does, and goes on with it."""
    with server.client() as other, server.connect() as sock:
        sock.sendall(post_head("/hold", TOO_LARGE_FOR_BUFFERS))
        data = memoryview(payload(TOO_LARGE_FOR_BUFFERS))
        sock.setblocking(False)
        sent, idle = 0, 0
        while idle < 50:
            try:
                sent += sock.send(data[sent : sent + MEGABYTE])
                idle = 0
            except BlockingIOError:
                idle += 1
                ask(other, "/state")  # a round trip in which the server can read
        assert 0 < sent < TOO_LARGE_FOR_BUFFERS

        sock.settimeout(20)
        ask(other, "/release")
        sock.sendall(data[sent:])
        _, body = read_response(sock)
    assert body == str(Checksum(data)).encode()


# ------------------------------------------------------------ connections


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_connection_close(server, version):
    """The end of stream follows the answer."""
    with server.connect() as sock:
        request = get_head("/?close", "Connection: close")
        sock.sendall(request.replace(b"HTTP/1.1", version))
        answer = read_to_end(sock)
    assert answer.endswith(b"\r\n\r\nclose")


def test_the_client_half_closes(server):
    """uvicorn lets the answer go when the client sends no more; the connection ends for both."""
    with server.connect() as sock:
        sock.sendall(get_head("/?first"))
        assert read_response(sock)[1] == b"first"
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b""


def test_pipelined_requests(server):
    """Answers come in the order of the requests, that all arrived at once."""
    with server.connect() as sock:
        requests = [get_head(f"/?{number}") for number in range(99)]
        sock.sendall(b"".join([*requests, get_head("/?99", "Connection: close")]))
        answers = read_to_end(sock)
    bodies = [answer.rpartition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"%d" % number for number in range(100)]


def test_a_request_byte_by_byte(server):
    """As many reads as there are bytes."""
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post_head("/upload", 3) + b"abc":
            sock.sendall(bytes([byte]))
        assert read_response(sock)[1] == str(Checksum(b"abc")).encode()


def test_no_http(server):
    """Nonsense is answered with 400 and the end; the next client is served."""
    with server.connect() as sock:
        sock.sendall(b"\x16\x03\x01 no HTTP \r\n\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")
    assert server.ask("/?next") == b"next"


# ------------------------------------------------------------ clients that leave


def reset(sock):
    """Close with a reset instead of an end of stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_the_client_leaves_in_mid_upload(server, leave):
    """The application hears of it, and everybody else is served."""
    before = server.state()
    received, disconnects = before["received"] + 100_000, before["disconnects"] + 1
    with server.connect() as sock:
        sock.sendall(post_head("/upload", MEGABYTE) + payload(100_000))
        server.wait_until(lambda state: state["received"] == received, "in the middle of the body")
        leave(sock)
    server.wait_until(lambda state: state["disconnects"] == disconnects, "told of the disconnect")
    assert server.ask("/?next") == b"next"


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_the_client_leaves_in_mid_download(server, leave):
    """The application is not held up for ever by a peer that is gone."""
    with server.connect(receive_buffer=65536) as sock:
        before = server.state()["sent"]
        sock.sendall(get_head(f"/download?{TOO_LARGE_FOR_BUFFERS}"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
        leave(sock)
    end = before + TOO_LARGE_FOR_BUFFERS
    server.wait_until(lambda state: state["sent"] == end, "at the end of the download")


def test_clients_leave_under_load(server):
    """Connections that are reset at any moment do not disturb the others."""
    with Background(load.run, server.url, 1000, 10) as other:
        for round_ in range(50):
            with server.connect() as sock:
                sock.sendall(
                    get_head("/?half")[: round_ + 1] if round_ % 2 else get_head("/?whole")
                )
                reset(sock)
        assert other.result().ok


# ------------------------------------------------------------ start and stop


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_graceful_shutdown(loop_kind, signum):
    """Idle connections are closed, a request under way is answered, then the process ends."""
    with uvicorn(loop_kind) as server, server.connect() as idle, server.connect() as busy:
        server.wait_for(f"application started on {loop_kind}")
        idle.sendall(get_head("/?idle"))
        read_response(idle)
        busy.sendall(post_head("/upload", 6) + b"abc")
        server.wait_until(lambda state: state["received"] == 3, "reading the body")

        server.signal(signum)
        assert read_to_end(idle) == b""
        server.wait_for("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        busy.sendall(b"def")
        assert read_response(busy)[1] == str(Checksum(b"abcdef")).encode()
        assert read_to_end(busy) == b""
        assert server.wait() == stock_exit_code(signum)

        server.wait_for("application stopped")
        assert not server.complaints(), server.output


def test_a_second_interrupt(loop_kind):
    """Ctrl-C twice, the second while uvicorn waits: the application gets no orderly end then.

    uvicorn itself still waits for the connection, in Server.wait_closed() (stock asyncio has that
    wait since 3.12.1): it is the client that ends it here.
    """
    with uvicorn(loop_kind) as server, server.connect() as busy:
        busy.sendall(post_head("/upload", 6) + b"abc")
        server.wait_until(lambda state: state["received"] == 3, "reading the body")
        server.signal(signal.SIGINT)
        server.wait_for("Waiting for connections to close")
        server.signal(signal.SIGINT)
        busy.close()
        assert server.wait() == stock_exit_code(signal.SIGINT)
        server.wait_for("Finished server process")
        # What the log says of the request that was torn off depends on uvicorn and on Python.
        assert "application stopped" not in server.lines


def test_an_idle_connection_times_out(loop_kind):
    """`--timeout-keep-alive` closes it, after an answer as well as before the first request."""
    with uvicorn(loop_kind, "--timeout-keep-alive", "1") as server, server.connect() as sock:
        sock.sendall(get_head("/?idle"))
        read_response(sock)
        assert read_to_end(sock) == b""
        assert server.ask("/?next") == b"next"
        server.stop(signal.SIGTERM)
        assert not server.complaints(), server.output


def failing_start(kind, *arguments, **env):
    """(exit code, lines) of a uvicorn that does not come up."""
    with pytest.raises(AssertionError, match="the server did not print"):
        with (server := uvicorn(kind, *arguments, **env)):
            pass
    return server.wait(), server.lines


def without_pids(lines):
    return [line for line in lines if "server process" not in line]


def test_the_application_fails_to_start(loop_kind):
    """The same exit code and the same log as on asyncio."""
    code, lines = failing_start(loop_kind, ASGI_APP_FAILS="1")
    stock_code, stock_lines = failing_start("asyncio", ASGI_APP_FAILS="1")
    assert (code, without_pids(lines)) == (stock_code, without_pids(stock_lines))
    assert "ERROR:    told to fail" in lines


def test_the_port_is_in_use(loop_kind):
    """The same exit code and the same message as on asyncio, with the address in it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        code, lines = failing_start(loop_kind, "--port", port)
        stock_code, stock_lines = failing_start("asyncio", "--port", port)
    assert code == stock_code != 0
    assert complaint(lines) == complaint(stock_lines)
    text = os.strerror(errno.EADDRINUSE).lower()
    assert f"('127.0.0.1', {port}): {text}" in complaint(lines)


def complaint(lines):
    """The one error line. asyncio repeats the number at its end since 3.12."""
    (line,) = (line for line in lines if line.startswith("ERROR"))
    return re.sub(r"\[errno \d+\] ", "", line)
