"""A bounded HTTP load: so many requests over so many keep-alive connections, each answer checked.

    python tests/integration/load.py --url http://127.0.0.1:8000/ --requests 20000 --connections 50

Plain sockets in one thread, no event loop: nothing of what is tested is in here. Requests are
numbered, so that an answer that reaches the wrong connection, or comes twice, is an error. The
server has to answer

- `GET /?17` with the body `17`,
- `POST /?17` (`--body N`: N bytes are sent) with the body that it got,

with status 200, a Content-Length, and the connection kept open.
"""

import argparse
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Seconds without any progress after which the server counts as hanging.
PATIENCE = 20.0
# Bytes, and also how many errors are printed.
CHUNK = 1 << 18
SHOWN = 10


@dataclass
class Result:
    """What came of a load; `errors` are sentences, `verified` is the number of right answers."""

    requests: int
    connections: int
    seconds: float = 0.0
    verified: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def ok(self):
        return not self.errors and self.verified == self.requests

    def __str__(self):
        rate = self.requests / self.seconds if self.seconds else 0.0
        return (
            f"{self.requests} requests, {self.connections} connections, {self.seconds:.2f} seconds,"
            f" {rate:.0f} requests/s, {self.verified} verified, {len(self.errors)} errors"
        )


class BadAnswer(Exception):
    """The server said something else than it should have."""


class Connection:
    """One connection, with one request under way at a time."""

    def __init__(self, load, sock):
        self.load = load
        self.sock = sock
        self.number = None
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self._head = None  # (where the body starts, where it ends), once the head is complete

    def start(self, number):
        """Put the next request on its way."""
        self.number = number
        self._head = None
        self._unsent = memoryview(self.load.request(number))
        self.write()

    def write(self):
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent[:CHUNK]) :]
        except BlockingIOError:
            pass

    @property
    def events(self):
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def read(self):
        """True when the answer is complete, and right."""
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return False
        if not data:
            raise BadAnswer(f"end of stream after {len(self._received)} bytes of the answer")
        self._received += data
        if self._head is None and not self._read_head():
            return False
        start, end = self._head
        if len(self._received) < end:
            return False
        if len(self._received) > end:
            raise BadAnswer(f"{len(self._received) - end} bytes more than the answer has")
        if self._unsent:
            raise BadAnswer("answered before the request was complete")
        expected = self.load.answer(self.number)
        if self._received[start:] != expected:
            shown = bytes(self._received[start : start + 50])
            raise BadAnswer(f"the body of {end - start} bytes is wrong: {shown!r}...")
        self._received.clear()
        return True

    def _read_head(self):
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        status, *lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
        if status.split(" ")[:2] != ["HTTP/1.1", "200"]:
            raise BadAnswer(f"status line {status!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("connection", "").lower() == "close":
            raise BadAnswer("the server wants to close the connection")
        if not headers.get("content-length", "").isdigit():
            raise BadAnswer(f"no Content-Length in {headers}")
        self._head = (end + 4, end + 4 + int(headers["content-length"]))
        return True


class Load:
    def __init__(self, url, requests, connections, body=0, patience=PATIENCE):
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.query:
            raise ValueError(f"not the URL of a plain HTTP server: {url!r}")
        if requests < 1 or connections < 1 or body < 0:
            raise ValueError(f"nothing to do: {requests=} {connections=} {body=}")
        self._address = (parts.hostname, parts.port or 80)
        self._method = "POST" if body else "GET"
        self._path = parts.path or "/"
        self._length = f"Content-Length: {body}\r\n" if body else ""
        self._host = parts.netloc
        self._body = body
        self._patience = patience
        self._numbers = iter(range(requests))
        self._selector = selectors.DefaultSelector()
        self.result = Result(requests, min(connections, requests))

    def request(self, number):
        head = (
            f"{self._method} {self._path}?{number} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"{self._length}\r\n"
        )
        return head.encode() + self._request_body(number)

    def answer(self, number):
        return self._request_body(number) if self._body else b"%d" % number

    def _request_body(self, number):
        pattern = b"%d," % number
        return (pattern * (self._body // len(pattern) + 1))[: self._body]

    def run(self):
        start = time.perf_counter()
        with self._selector:
            try:
                self._connect()
                self._drive()
            finally:
                for key in list(self._selector.get_map().values()):
                    key.fileobj.close()
        self.result.seconds = time.perf_counter() - start
        return self.result

    def _connect(self):
        for _ in range(self.result.connections):
            try:
                sock = socket.create_connection(self._address, self._patience)
            except OSError as exc:
                self.result.errors.append(f"cannot connect to {self._address}: {exc}")
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ, Connection(self, sock))

    def _drive(self):
        for key in list(self._selector.get_map().values()):
            self._next(key.data)
        while self._selector.get_map():
            ready = self._selector.select(self._patience)
            if not ready:
                waiting = [key.data.number for key in self._selector.get_map().values()]
                self.result.errors.append(f"no answer to the requests {waiting}: the server hangs")
                return
            for key, events in ready:
                self._step(key.data, events)

    def _step(self, connection, events):
        try:
            if events & selectors.EVENT_WRITE:
                connection.write()
            done = events & selectors.EVENT_READ and connection.read()
        except (BadAnswer, OSError) as exc:
            self._failed(connection, exc)
            return
        if done:
            self.result.verified += 1
            self._next(connection)
        else:
            self._selector.modify(connection.sock, connection.events, connection)

    def _next(self, connection):
        number = next(self._numbers, None)
        if number is None:
            self._drop(connection)
            return
        try:
            connection.start(number)
        except OSError as exc:
            self._failed(connection, exc)
            return
        self._selector.modify(connection.sock, connection.events, connection)

    def _failed(self, connection, exc):
        self.result.errors.append(f"request {connection.number}: {type(exc).__name__}: {exc}")
        self._drop(connection)

    def _drop(self, connection):
        self._selector.unregister(connection.sock)
        connection.sock.close()


def run(url, requests, connections, body=0, patience=PATIENCE):
    """Drive the load to its end, which comes also when the server hangs; the `Result`."""
    return Load(url, requests, connections, body, patience).run()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="http://HOST:PORT/PATH")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--body", type=int, default=0, metavar="N", help="POST this many bytes")
    options = parser.parse_args(arguments)
    try:
        result = run(options.url, options.requests, options.connections, options.body)
    except ValueError as exc:
        parser.error(str(exc))
    print(result)
    for error in result.errors[:SHOWN]:
        print(error)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
