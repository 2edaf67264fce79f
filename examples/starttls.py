"""A connection that begins in plain text and goes over to TLS, as those of SMTP do.

python examples/starttls.py    server and client in one program, with the tests' certificates
"""

import ssl
from pathlib import Path

import veloop as asyncio

CERTS = Path(__file__).resolve().parent.parent / "tests" / "certs"


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data == b"STARTTLS\n":
            self.transport.write(b"go ahead\n")
            self.upgrade = asyncio.ensure_future(self.start_tls())
        else:
            self.transport.write(b"heard: " + data)

    async def start_tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTS / "server.pem")
        loop = asyncio.get_running_loop()
        self.transport = await loop.start_tls(self.transport, self, context, server_side=True)
        self.transport.write(b"nobody else listens now\n")


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    print("plain:", (await reader.readline()).decode().rstrip())

    await writer.start_tls(
        ssl.create_default_context(cafile=CERTS / "ca.pem"), server_hostname="localhost"
    )
    version = writer.get_extra_info("ssl_object").version()
    print(f"{version}:", (await reader.readline()).decode().rstrip())
    writer.write(b"a secret\n")
    print(f"{version}:", (await reader.readline()).decode().rstrip())
    writer.close()
    await writer.wait_closed()
    server.close()


asyncio.run(main())
