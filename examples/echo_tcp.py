"""TCP echo with transports and protocols, the layer below streams.

python examples/echo_tcp.py         server and client in one program
python examples/echo_tcp.py 7000    the server only, on that port, until Ctrl-C
"""

import contextlib
import sys

import veloop as asyncio


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self, message):
        self.message = message
        self.answer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        transport.write(self.message)
        transport.write_eof()

    def data_received(self, data):
        self.answer += data

    def connection_lost(self, exc):
        self.done.set_result(self.answer)


async def main(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port)
    async with server:
        host, port = server.sockets[0].getsockname()
        if len(sys.argv) > 1:
            print(f"echo on {host}:{port}, Ctrl-C to stop", flush=True)
            await server.serve_forever()
        for message in (b"one", b"two" * 100_000):
            _, client = await loop.create_connection(lambda m=message: Client(m), host, port)
            answer = await client.done
            print(f"sent {len(message)} bytes, got {len(answer)}, equal: {answer == message}")


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
