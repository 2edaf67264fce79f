"""What the TLS tests share: both ends on the loop, or a blocking peer that rules each record."""

import _ssl
import contextlib
import ctypes
import ssl

import pytest

from certificates import client_context, server_context
from helpers import PATIENCE, PYPY, RecordingProtocol, tcp_pair
from tcp_helpers import address, end, in_executor, serving, turns, until

NAME = "localhost"  # what the server's certificate says


@contextlib.asynccontextmanager
async def tls_serving(loop, factory=None, *, context=None, **kwargs):
    """`serving` over TLS."""
    async with serving(loop, factory, ssl=context or server_context(), **kwargs) as result:
        yield result


async def connect(loop, server, factory=None, **kwargs):
    """(transport, protocol) of a client of a server on the loop."""
    kwargs.setdefault("ssl", client_context())
    kwargs.setdefault("server_hostname", NAME)
    return await loop.create_connection(
        factory or (lambda: RecordingProtocol(loop)), *address(server), **kwargs
    )


@contextlib.asynccontextmanager
async def tls_linked(loop, client_factory=None, server_factory=None, *, server=None, client=None):
    """(client protocol, server protocol): both ends of a TLS connection on the loop."""
    async with tls_serving(loop, server_factory, context=server) as (listener, protocols):
        transport, protocol = await connect(
            loop, listener, client_factory, ssl=client or client_context()
        )
        try:
            await until(lambda: protocols)
            await protocols[0].connected
            yield protocol, protocols[0]
        finally:
            end(transport)
            await turns()


class Peer:
    """One end of a TLS connection over a blocking socket; nothing is sent unless it says so."""

    def __init__(self, sock, context=None, *, server_side=False, server_hostname=NAME):
        self.sock = sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        if context is None:
            context = server_context() if server_side else client_context()
        self.sslobj = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else server_hostname,
        )

    def flush(self):
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def _receive(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError("the connection ended")
        self.incoming.write(data)

    def _do(self, function, *args):
        while True:
            try:
                result = function(*args)
            except ssl.SSLWantReadError:
                self.flush()
                self._receive()
            else:
                self.flush()
                return result

    def handshake(self):
        self._do(self.sslobj.do_handshake)

    def records(self, data):
        """The encrypted form of data, which is the caller's to send."""
        assert not self.outgoing.pending
        self.sslobj.write(data)
        return self.outgoing.read()

    def send(self, data):
        self.sock.sendall(self.records(data))

    def recv(self, size):
        """Exactly so many bytes."""
        parts = []
        while size:
            part = self._do(self.sslobj.read, min(size, 1 << 14))
            if not part:
                raise EOFError(f"close_notify, {size} bytes early")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def recv_all(self):
        """Everything up to close_notify."""
        parts = []
        with contextlib.suppress(ssl.SSLZeroReturnError):  # instead of b"", after our own
            while part := self._do(self.sslobj.read, 1 << 14):
                parts.append(part)
        return b"".join(parts)

    def goodbye(self):
        """Send close_notify; wait for nothing."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.sslobj.unwrap()
        self.flush()

    def unwrap(self):
        """close_notify in both directions."""
        self._do(self.sslobj.unwrap)


@contextlib.asynccontextmanager
async def tls_wired(loop, factory=None, *, server_side=True, context=None, peer=None, **kwargs):
    """(transport, protocol, Peer): a TLS transport of the loop and a blocking peer.

    With server_side the loop's end is the server. The contexts are those of the loop's end and
    of the peer.
    """
    factory = factory or (lambda: RecordingProtocol(loop))
    with tcp_pair() as (near, far):
        far.settimeout(PATIENCE)
        end_of_wire = Peer(far, peer, server_side=not server_side)
        handshake = in_executor(end_of_wire.handshake)
        handshake = loop.create_task(handshake)
        sock = near.dup()
        if server_side:
            transport, protocol = await loop.connect_accepted_socket(
                factory, sock, ssl=context or server_context(), **kwargs
            )
        else:
            transport, protocol = await loop.create_connection(
                factory, sock=sock, ssl=context or client_context(), server_hostname=NAME, **kwargs
            )
        await handshake
        near.close()
        try:
            yield transport, protocol, end_of_wire
        finally:
            end(transport)
            await turns()


def openssl(sslobj, function, *args):
    """Call a function of OpenSSL's that Python has no name for, such as SSL_key_update.

    Only CPython keeps its SSL * where this looks, and only some builds let one call OpenSSL.
    """
    if PYPY:
        pytest.skip("no way to OpenSSL's own functions in this Python")
    function = getattr(ctypes.CDLL(_ssl.__file__), function, None)
    if function is None:
        pytest.skip("this Python hides OpenSSL's own functions")
    # PyObject_HEAD, the socket, the SSL *
    where = id(sslobj._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    pointer = ctypes.c_void_p.from_address(where)
    assert function(pointer, *args) == 1
