"""A service on a Unix socket, whose file is gone when the server is.

python examples/unix_socket.py
"""

import tempfile
from pathlib import Path

import veloop as asyncio


async def count(reader, writer):
    text = await reader.read()
    writer.write(b"%d words\n" % len(text.split()))
    writer.close()


async def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "words")
        loop = asyncio.get_running_loop()

        def protocol():
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), count)

        server = await loop.create_unix_server(protocol, path, cleanup_socket=True)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"how many words are these")
        writer.write_eof()
        print((await reader.read()).decode(), end="")
        writer.close()
        server.close()
        await server.wait_closed()
        print("file is gone:", not path.exists())


asyncio.run(main())
