"""UDP echo: an endpoint that answers, and one that asks and counts what comes back.

python examples/echo_udp.py         both in one program
python examples/echo_udp.py 7000    the answering one only, on that port, until Ctrl-C
"""

import contextlib
import sys

import veloop as asyncio


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


class Client(asyncio.DatagramProtocol):
    def __init__(self, count):
        self.count = count
        self.received = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        for number in range(self.count):
            transport.sendto(b"datagram %d" % number)

    def datagram_received(self, data, address):
        self.received += 1
        if self.received == self.count and not self.done.done():
            self.done.set_result(None)


async def main(port):
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", port))
    address = server.get_extra_info("sockname")
    if len(sys.argv) > 1:
        print("echo on {}:{}, Ctrl-C to stop".format(*address), flush=True)
        await asyncio.Event().wait()
    client, protocol = await loop.create_datagram_endpoint(lambda: Client(100), remote_addr=address)
    with contextlib.suppress(TimeoutError):  # UDP may lose some
        await asyncio.wait_for(protocol.done, 2)
    print(f"sent {protocol.count} datagrams, got {protocol.received} back")
    client.close()
    server.close()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
