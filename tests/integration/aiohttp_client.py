"""An aiohttp client that takes so much up and down, and tells how its memory fared.

    python aiohttp_client.py veloop http://127.0.0.1:8000 104857600

For a server like aiohttp_server.py. It prints the checksums of what went up and what came down, and
by how many bytes its peak memory grew meanwhile.
"""

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
from aiohttp_server import peak_memory
from payload import Checksum, chunks

sys.path.append(os.fspath(Path(__file__).resolve().parent.parent))
from certificates import client_context


async def transfer(session, size):
    """Once up, once down: the server's checksum of the one, ours of the other."""

    async def parts():
        for part in chunks(size):
            yield part

    async with session.post("/upload", data=parts()) as response:
        up = await response.text()
    down = Checksum()
    async with session.get(f"/download?{size}") as response:
        async for part in response.content.iter_any():
            down.feed(part)
            await asyncio.sleep(0)
    return up, down


async def main(url, size):
    connector = aiohttp.TCPConnector(ssl=client_context())
    async with aiohttp.ClientSession(url, connector=connector) as session:
        await transfer(session, 1 << 20)
        before = peak_memory()
        up, down = await transfer(session, size)
    print(up, down, peak_memory() - before)


if __name__ == "__main__":
    kind, url, size = sys.argv[1:]
    if kind == "veloop":
        import veloop

        veloop.run(main(url, int(size)))
    else:
        asyncio.run(main(url, int(size)))
