"""What the tests of the sock_ methods' watches share: sockets that were waited for."""

import os
import socket

from helpers import socket_pair
from tcp_helpers import turns


async def receive_late(loop, sock, peer, data=b"first"):
    """A receive that has to wait, so that there is a watch of the socket."""
    task = loop.create_task(loop.sock_recv(sock, 100))
    await turns()
    peer.send(data)
    assert await task == data


async def left_behind(loop, stack, copied, number=None):
    """(number, peer) of a socket that was waited for and closed.

    copied: its file lives on. Otherwise the peer is None.
    """
    sock, peer = stack.enter_context(socket_pair())
    if number is not None:
        os.dup2(sock.fileno(), number)
        sock.close()
        sock = socket.socket(fileno=number)
        sock.setblocking(False)  # PyPy makes it block
    await receive_late(loop, sock, peer)
    number = sock.fileno()
    if copied:
        stack.enter_context(sock.dup())
    sock.close()
    return number, peer if copied else None


def write(peer):
    if peer is not None:
        peer.send(b"for nobody")
