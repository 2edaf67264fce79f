"""aiohttp and 100 MB: nothing is lost, and no process grows, whoever is the slower one.

Servers and clients are in processes of their own, so that their memory can be measured.
"""

import signal
import subprocess
import sys

import pytest
from payload import MEGABYTE, Checksum, chunks, payload
from started_servers import HERE, Server, get_head

from children import script_env
from helpers import LINUX, PATIENCE, PYPY

pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install '.[test]')")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.memory,
    pytest.mark.skipif(not LINUX, reason="the peak of a process's memory is read from /proc"),
]

SIZE = 100 * MEGABYTE
# What a process may grow by; a tenth of what goes through it.
GROWTH = 10 * MEGABYTE
# PyPy lets garbage stand as long as there is memory: several times what goes through, on any loop.
PEAK_GROWTH = float("inf") if PYPY else GROWTH


@pytest.fixture(scope="module")
def checksum():
    return str(Checksum(payload(SIZE)))


@pytest.fixture(params=["clear", "tls"])
def server(request, loop_kind):
    options = ["tls"] if request.param == "tls" else []
    with Server(loop_kind, "aiohttp_server.py", loop_kind, *options) as server:
        # What it needs in any case: for its first connection, reads, writes.
        server.ask("/upload", payload(MEGABYTE))
        server.ask(f"/download?{MEGABYTE}")
        server.idle = server.state()
        yield server
        assert server.state()["peak"] - server.idle["peak"] < PEAK_GROWTH
        assert server.stop(signal.SIGTERM) == 0
        assert not server.complaints(), server.output


def test_upload_to_the_server(server, checksum):
    """From a client that is as fast as it can be."""
    headers = {"Content-Length": str(SIZE)}
    assert server.ask("/upload", chunks(SIZE), headers).decode() == checksum


def test_download_by_a_client_that_reads_slowly(server, checksum):
    """The server's `write` waits as long as the client does not read."""
    with server.client() as other, server.connect(receive_buffer=65536) as sock:
        sock.sendall(get_head(f"/download?{SIZE}", "Connection: close"))
        sent = server.settled("sent", other) - server.idle["sent"]
        assert 0 < sent < GROWTH

        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        received = Checksum()
        # Small reads first, which let the server on by little.
        while data := sock.recv(1000 if received.size < MEGABYTE else MEGABYTE):
            received.feed(data)
    assert str(received) == checksum


def test_a_client_with_100_megabytes(server, loop_kind, checksum):
    """aiohttp's client, up and down, on the same kind of loop as the server."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "aiohttp_client.py", loop_kind, server.url, str(SIZE)],
        cwd=HERE,
        env=script_env(loop_kind),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    up, down, growth = done.stdout.split()
    assert up == down == checksum
    assert int(growth) < PEAK_GROWTH
