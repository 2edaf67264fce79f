"""A chat room: what one says, all the others get.

python examples/chat.py         a scripted chat
python examples/chat.py 7000    the room only, on that port, until Ctrl-C; `nc 127.0.0.1 7000`
"""

import contextlib
import sys

import veloop as asyncio

people = {}


def tell(text, but=None):
    for writer in people:
        if writer is not but:
            writer.write(text.encode() + b"\n")


async def visit(reader, writer):
    name = (await reader.readline()).decode().strip() or "nobody"
    people[writer] = name
    tell(f"* {name} comes in, {len(people)} here")
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            tell(f"{name}: {line.decode().strip()}", but=writer)
    del people[writer]
    tell(f"* {name} leaves")
    writer.close()


async def act(address):
    ada_reads, ada_writes = await asyncio.open_connection(*address)
    ada_writes.write(b"Ada\n")
    print((await ada_reads.readline()).decode(), end="")
    _, bob_writes = await asyncio.open_connection(*address)
    bob_writes.write(b"Bob\nhello!\n")
    bob_writes.close()
    for _ in range(3):
        print((await ada_reads.readline()).decode(), end="")
    ada_writes.close()


async def main(port):
    server = await asyncio.start_server(visit, "127.0.0.1", port)
    async with server:
        if len(sys.argv) > 1:
            print("Ctrl-C to stop", flush=True)
            await server.serve_forever()
        await act(server.sockets[0].getsockname())


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
