"""Servers in child processes, as their users start them, and what is said to them over sockets."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from certificates import client_context
from children import script_env
from helpers import PATIENCE, WINDOWS

HERE = Path(__file__).parent
# How many requests test_load makes; the acceptance run of README.md sets it to 20000.
REQUESTS = int(os.environ.get("VELOOP_LOAD", "2000"))
CONNECTIONS = 50
# A line of a server's output with one of these is a failure.
COMPLAINTS = re.compile(r"Traceback|Exception ignored|Warning|ERROR|CRITICAL|Fatal")


class Server:
    """A child process that prints its URL or Unix socket; its output is read all the time."""

    def __init__(self, kind, *arguments, options=("-W", "error"), **env):
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-u", *options, *arguments],
            cwd=HERE,
            env=script_env(kind, **env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="server output", daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __enter__(self):
        try:
            found = self.wait_for(r"(https?)://127\.0\.0\.1:(\d+)|unix socket (\S+)")
        except BaseException:
            self.__exit__()
            raise
        scheme, port, path = found.groups()
        self.secure = scheme == "https"
        self.address = path or ("127.0.0.1", int(port))
        self.url = None if path else f"{scheme}://127.0.0.1:{port}/"
        return self

    def __exit__(self, *exc_info):
        if self._process.poll() is None:
            self._kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _kill(self):
        if WINDOWS:
            self._process.kill()
        else:  # its workers as well, which have its output too
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def output(self):
        return "\n".join(self.lines)

    def wait_for(self, pattern):
        """The match of the first line that has it, now or later."""

        def found():
            matches = (re.search(pattern, line) for line in self.lines)
            return next(filter(None, matches), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, PATIENCE)
            match = found()
        assert match, f"the server did not print {pattern!r} but:\n{self.output}"
        return match

    def signal(self, signum):
        self._process.send_signal(signum)

    def wait(self):
        """The exit code, when it ends by itself."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end:\n{self.output}") from None
        self._reader.join()
        return code

    def stop(self, signum):
        self.signal(signum)
        return self.wait()

    def complaints(self):
        return [line for line in self.lines if COMPLAINTS.search(line)]

    # -------------------------------------------------------- requests

    def connect(self, receive_buffer=None):
        """A blocking socket, with TLS where the server has it."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(family))
            if receive_buffer is not None:
                # Before the connection is made: the window is agreed on then.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
            if self.secure:
                sock = client_context().wrap_socket(sock, server_hostname="localhost")
            stack.pop_all()
        return sock

    @contextlib.contextmanager
    def client(self):
        """An http.client connection."""
        client = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        with contextlib.closing(client):
            client.sock = self.connect()
            yield client

    def ask(self, path, body=None, headers=None):
        """The body of the answer, from a connection of its own."""
        with self.client() as client:
            return ask(client, path, body, headers)

    def state(self):
        return json.loads(self.ask("/state"))

    def settled(self, counter, client, rounds=50):
        """The counter of /state, once that many requests in a row found it unchanged."""
        value, same = None, 0
        deadline = time.monotonic() + PATIENCE
        while same < rounds:
            before, value = value, json.loads(ask(client, "/state"))[counter]
            same = same + 1 if value == before else 0
            assert time.monotonic() < deadline, f"{counter} never settles, now at {value}"
        return value

    def wait_until(self, condition, what):
        """Ask for the state until it is so. Each round is a round trip, so nothing spins."""
        deadline = time.monotonic() + PATIENCE
        while not condition(state := self.state()):
            assert time.monotonic() < deadline, f"never {what}: {state}"


def ask(client, path, body=None, headers=None):
    """One request on an http.client connection: the body of the answer, which must be a 200."""
    method = "GET" if body is None else "POST"
    client.request(method, path, body, headers or {})
    response = client.getresponse()
    data = response.read()
    assert response.status == 200, f"{path}: {response.status} {data!r}"
    return data


def post_head(path, length, *headers):
    """The head of a POST request, for those who send the body in their own way."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def get_head(path, *headers):
    lines = [f"GET {path} HTTP/1.1", "Host: test", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def read_response(sock):
    """(head, body) of one answer with a Content-Length, and nothing after it."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += _receive(sock)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE).group(1))
    body = bytearray(body)
    while len(body) < length:
        body += _receive(sock)
    assert len(body) == length
    return head.decode("latin-1"), bytes(body)


def _receive(sock):
    data = sock.recv(1 << 20)
    assert data, "end of stream in the middle of an answer"
    return data


def read_to_end(sock):
    """What comes until the peer's end of stream."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)
