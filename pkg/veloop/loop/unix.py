"""create_unix_connection, create_unix_server: stream sockets with a name in the file system, or
in Linux's abstract namespace.

Once connected they are stream sockets like any other: transports and server are those of TCP. What
is different is the name. A server takes the place of a socket file that nobody removed, and
removes its own at the end, unless the file is somebody else's by then.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

from . import sockets, tls
from .arguments import check_backlog, check_callable, check_no_tls_socket
from .debug import logger
from .server import ProtocolFactory, Server
from .tcp import open_transport

if TYPE_CHECKING:
    from .loop import EventLoop

# Before CPython 3.13 programs had to remove the file themselves, and fail where it is gone.
CLEANUP = sys.version_info >= (3, 13)

# Taken early, as in sendfile.py: what looks for blocking calls in coroutines (blockbuster) replaces
# these and os.path.samestat, and lets the functions of asyncio's files alone call them.
_stat, _unlink = os.stat, os.unlink


class UnixServer(Server):
    """A server that removes its socket file when it is closed."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        protocol_factory: ProtocolFactory,
        backlog: int,
        secure: tls.Settings | None,
        cleanup_socket: bool,
    ) -> None:
        super().__init__(loop, [sock], protocol_factory, backlog, secure)
        self._file = _file_of(sock) if cleanup_socket else None

    def __repr__(self) -> str:
        return f"<Server sockets={self.sockets!r}>"  # asyncio has one class for all

    def close(self) -> None:
        """Stop listening, close the listening socket, remove its file. Idempotent."""
        file, self._file = self._file, None
        super().close()
        if file is None:
            return
        path, status = file
        try:
            now = _stat(path)
            if (now.st_ino, now.st_dev) == (status.st_ino, status.st_dev):
                _unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)


def _file_of(sock: socket.socket) -> tuple[str, os.stat_result] | None:
    """The file that a bound socket has in the file system, and which it is."""
    name = sock.getsockname()
    if not isinstance(name, str) or not name:  # abstract, or not bound
        return None
    try:
        return name, _stat(name)
    except FileNotFoundError:
        return None


def _check_supported() -> None:
    if not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError("this system's Python has no Unix sockets (socket.AF_UNIX)")


def _check_path(path: Any) -> str | bytes:
    try:
        return os.fspath(path)  # type: ignore[no-any-return]
    except TypeError:
        raise TypeError(f"path must be a str, bytes or os.PathLike, not {path!r}") from None


def _check_unix_socket(sock: Any) -> None:
    check_no_tls_socket(sock)
    if not hasattr(sock, "family"):
        raise AttributeError(f"sock must be a socket, not {sock!r}")
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


async def create_unix_connection(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    path: Any,
    *,
    ssl: Any,
    sock: socket.socket | None,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
) -> tuple[asyncio.Transport, Any]:
    _check_supported()
    check_callable("protocol_factory", protocol_factory)
    if server_hostname is not None and not isinstance(server_hostname, str):
        raise TypeError(f"server_hostname must be a str or None, not {server_hostname!r}")
    if ssl and server_hostname is None:
        raise ValueError("you have to pass server_hostname when using ssl")
    secure = tls.settings(
        ssl,
        server_side=False,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    if path is None:
        if sock is None:
            raise ValueError("no path and sock were specified")
        _check_unix_socket(sock)
        return await open_transport(loop, sock, protocol_factory, ours=False, secure=secure)
    if sock is not None:
        raise ValueError("path and sock can not be specified at the same time")
    path = _check_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await sockets.sock_connect(loop, sock, path)
    except BaseException:
        sock.close()
        raise
    return await open_transport(loop, sock, protocol_factory, ours=True, secure=secure)


async def create_unix_server(
    loop: EventLoop,
    protocol_factory: ProtocolFactory,
    path: Any,
    *,
    sock: socket.socket | None,
    backlog: int,
    ssl: Any,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    start_serving: bool,
    cleanup_socket: bool,
) -> Server:
    _check_supported()
    if isinstance(ssl, bool):
        raise TypeError(f"ssl argument must be an SSLContext or None, not {ssl!r}")
    check_callable("protocol_factory", protocol_factory)
    check_backlog(backlog)
    secure = tls.settings(
        ssl,
        server_side=True,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    if path is None:
        if sock is None:
            raise ValueError("path was not specified, and no sock specified")
        _check_unix_socket(sock)
        bound = sock
    elif sock is not None:
        raise ValueError("path and sock can not be specified at the same time")
    else:
        bound = _bind(_check_path(path))
    try:
        bound.setblocking(False)
        server = UnixServer(loop, bound, protocol_factory, backlog, secure, cleanup_socket)
    except BaseException:
        if sock is None:
            bound.close()
        raise
    if start_serving:
        try:
            server._start_serving()
            await asyncio.sleep(0)
        except BaseException:
            # A socket of the caller's stays open, and keeps its file.
            if sock is None:
                server.close()
            else:
                server._stop_listening()
            raise
    return server


def _bind(path: str | bytes) -> socket.socket:
    """A socket with that name, in the place of one that is left over."""
    if not path:
        raise ValueError(f"path must not be empty: {path!r}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path[0] not in (0, "\0"):
            _remove_stale(path)
        sock.bind(path)
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    return sock


def _remove_stale(path: str | bytes) -> None:
    try:
        if stat.S_ISSOCK(_stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        # A folder may let us create sockets and nothing else: bind() decides.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, exc)
