"""sock_connect and sock_accept, on add_reader and add_writer: the system call first, and a wait
only where it would block. Cancelling the wait leaves no watch behind.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .arguments import check_no_tls_socket
from .dns import resolve

if TYPE_CHECKING:
    from .loop import EventLoop


def _check_socket(loop: EventLoop, sock: socket.socket) -> None:
    loop._check_closed()
    check_no_tls_socket(sock)
    if loop.get_debug() and sock.gettimeout() != 0:
        raise ValueError(f"the socket must be non-blocking: {sock!r}")


async def _wait(
    loop: EventLoop,
    sock: socket.socket,
    add: Callable[..., None],
    remove: Callable[[Any], bool],
) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add(sock, wake)
    try:
        await ready
    finally:
        remove(sock)


async def sock_connect(loop: EventLoop, sock: socket.socket, address: Any) -> None:
    _check_socket(loop, sock)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        infos = await resolve(loop, address, family=sock.family, type=sock.type, proto=sock.proto)
        address = infos[0][4]
    try:
        sock.connect(address)
        return
    except (BlockingIOError, InterruptedError):
        # Interrupted or not, the connection is under way and must not be asked for again.
        pass
    await _wait(loop, sock, loop.add_writer, loop.remove_writer)
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, f"Connect call failed {address}")


async def sock_accept(loop: EventLoop, sock: socket.socket) -> tuple[socket.socket, Any]:
    _check_socket(loop, sock)
    while True:
        try:
            conn, address = sock.accept()
        except (BlockingIOError, InterruptedError):
            await _wait(loop, sock, loop.add_reader, loop.remove_reader)
        else:
            conn.setblocking(False)
            return conn, address
