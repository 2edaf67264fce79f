"""What programs have that look for blocking calls in coroutines: they must not find ours.

blockbuster, for one, which the tests of aiohttp and Starlette turn on, replaces functions of the os
module. Those of asyncio's methods that may call them it knows by file and name.
"""

import asyncio
import os
import socket
import sys
import tempfile

import pytest

from helpers import LINUX, socket_pair
from tcp_helpers import run

KNOWN = {"create_unix_server", "_stop_serving", "sendfile", "_sock_sendfile_native_impl"}

pytestmark = pytest.mark.skipif(not LINUX, reason="about os.sendfile and Unix sockets")


@pytest.fixture(params=["stat", "unlink", "sendfile", "path.samestat"])
def detected(request, monkeypatch):
    """Calls of that function, but for those of asyncio that are known."""
    found = []
    *module, name = request.param.split(".")
    place = os.path if module else os
    real = getattr(place, name)

    def call(*args, **kwargs):
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if "/asyncio/" in code.co_filename and code.co_name in KNOWN:
                return real(*args, **kwargs)
            frame = frame.f_back
        found.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, call)
    return found


def test_unix_server(loop, detected):
    async def main(path):
        server = await loop.create_unix_server(asyncio.Protocol, path)
        server.close()
        await server.wait_closed()

    with tempfile.TemporaryDirectory(prefix="v") as folder:
        run(loop, main(f"{folder}/s"))
        assert detected == []


def test_sendfile(loop, tmp_path, detected):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def main():
        near, far = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
        with path.open("rb") as file, socket_pair() as (left, right), far:
            assert await loop.sock_sendfile(left, file, fallback=False) == 7
            assert right.recv(100) == b"content"
            assert await loop.sendfile(transport, file, fallback=False) == 7
            assert far.recv(100) == b"content"
            transport.close()

    run(loop, main())
    assert detected == []
