"""TCP echo with asyncio's streams, line by line.

python examples/echo_streams.py         server and clients in one program
python examples/echo_streams.py 7000    the server only, on that port, until Ctrl-C
"""

import contextlib
import sys

import veloop as asyncio


async def echo(reader, writer):
    try:
        async for line in reader:
            writer.write(line)
            await writer.drain()
    finally:
        writer.close()


async def client(name, host, port):
    reader, writer = await asyncio.open_connection(host, port)
    answers = []
    for number in range(3):
        writer.write(f"{name}, line {number}\n".encode())
        await writer.drain()
        answers.append((await reader.readline()).decode().rstrip())
    writer.close()
    await writer.wait_closed()
    return answers


async def main(port):
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    async with server:
        host, port = server.sockets[0].getsockname()
        if len(sys.argv) > 1:
            print(f"echo on {host}:{port}, Ctrl-C to stop", flush=True)
            await server.serve_forever()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client(name, host, port)) for name in ("Ada", "Grace")]
        for task in tasks:
            print(*task.result(), sep=" | ")


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
