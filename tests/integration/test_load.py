"""The load client itself: it must not call a bad server good."""

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import load
import pytest

from helpers import PATIENCE, Background, listening_socket, refusing_address

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s"


@contextlib.contextmanager
def server(respond):
    """The URL of a server that sends respond(request line, body) for every request.

    None closes the connection.
    """

    def serve(connection):
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                length = 0
                while (header := stream.readline()) != b"\r\n":
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                answer = respond(line.decode(), stream.read(length))
                if answer is None:
                    return
                try:
                    connection.sendall(answer)
                except OSError:
                    return

    def accept():
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                connection, _ = listener.accept()
                connection.settimeout(PATIENCE)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    threads = []
    with listening_socket() as listener, Background(accept):
        yield "http://{}:{}/".format(*listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(PATIENCE)


def right(line, body):
    """The answer as it should be."""
    text = body or line.split()[1].partition("?")[2].encode()
    return ANSWER % (len(text), b"", text)


@pytest.mark.parametrize("body", [0, 1, 300_000])
def test_a_good_server(body):
    with server(right) as url:
        result = load.run(url, 40, 4, body)
    assert result.ok, result.errors
    assert (result.verified, result.connections) == (40, 4)


def test_no_more_connections_than_requests():
    with server(right) as url:
        result = load.run(url, 3, 50)
    assert result.ok
    assert result.connections == 3


@pytest.mark.parametrize(
    "answer, error",
    [
        (ANSWER % (1, b"", b"x"), "the body of 1 bytes is wrong: b'x'"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "status line 'HTTP/1.1 500 Oops'"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "status line 'HTTP/1.0 200 OK'"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no Content-Length"),
        (ANSWER % (1, b"Connection: close\r\n", b"0"), "wants to close"),
        (ANSWER % (1, b"", b"00"), "1 bytes more than the answer has"),
        (ANSWER % (5, b"", b"x"), None),
        (None, "end of stream after 0 bytes"),
    ],
)
def test_a_bad_answer(answer, error):
    """Every kind is an error, also the one that never ends."""
    with server(lambda *_: answer) as url:
        result = load.run(url, 1, 1, patience=0.1 if error is None else PATIENCE)
    assert not result.ok
    assert result.verified == 0
    assert (error or "the server hangs") in result.errors[0]


def test_an_answer_for_somebody_else():
    with server(lambda *_: ANSWER % (1, b"", b"0")) as url:
        result = load.run(url, 2, 1)
    assert (result.ok, result.verified) == (False, 1)
    assert "request 1: BadAnswer" in result.errors[0]


def test_an_answer_before_the_end_of_the_request():
    with listening_socket() as listener:
        url = "http://{}:{}/".format(*listener.getsockname())
        with Background(load.run, url, 1, 1, 50_000_000) as client:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(ANSWER % (0, b"", b""))
                result = client.result()
    assert "before the request was complete" in result.errors[0]


def test_one_dead_connection_is_an_error_of_the_whole():
    """The others finish the load; the request that was under way is missing."""
    with server(lambda line, body: None if "?7 " in line else right(line, body)) as url:
        result = load.run(url, 20, 4)
    assert (result.ok, result.verified, len(result.errors)) == (False, 19, 1)


def test_no_server():
    with refusing_address() as (host, port):
        result = load.run(f"http://{host}:{port}/", 10, 2)
    assert not result.ok
    assert "cannot connect" in result.errors[0]


@pytest.mark.parametrize(
    "url, requests",
    [("https://localhost/", 1), ("localhost:80", 1), ("http://h/?query", 1), ("http://h/", 0)],
)
def test_bad_arguments(url, requests):
    with pytest.raises(ValueError, match="not the URL|nothing to do"):
        load.run(url, requests, 1)


@pytest.mark.slow
@pytest.mark.parametrize("respond, code", [(right, 0), (lambda *_: None, 1)])
def test_the_command(respond, code):
    """What README.md tells to run: what it prints and its exit code."""
    command = [sys.executable, Path(load.__file__), "--requests", "30", "--connections", "3"]
    with server(respond) as url:
        done = subprocess.run(
            [*command, "--url", url, "--body", "10"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith("30 requests, 3 connections, ")
    assert done.stdout.count("end of stream") == 3 * code
    assert (" 30 verified, 0 errors" in done.stdout) == (code == 0)
