"""An aiohttp server as README tells to start it, for load.py: `python aiohttp_server.py veloop`.

With `tls` behind the loop's name it is an https server.

GET  /?17            the query string            POST /           the body that came
GET  /loop           the class of the loop       POST /upload     size and checksum of the body
GET  /state          counters, peak memory       GET  /download?SIZE  so many bytes, streamed
"""

import asyncio
import os
import sys
from pathlib import Path

from aiohttp import web
from payload import Checksum, chunks

# The bytes that /download got rid of.
state = {"sent": 0}


async def query(request):
    return web.Response(text=request.query_string)


async def echo(request):
    return web.Response(body=await request.read())


async def loop(request):
    kind = type(asyncio.get_running_loop())
    return web.Response(text=f"{kind.__module__}.{kind.__qualname__}")


async def tell_state(request):
    return web.json_response({**state, "peak": peak_memory()})


def peak_memory():
    """The most memory that this process had at any time, in bytes; 0 where the system can't tell.

    Not getrusage: what it says of a child begins with the memory of the process it came from.
    """
    path = Path("/proc/self/status")
    if not path.exists():
        return 0
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


async def upload(request):
    checksum = Checksum()
    async for part in request.content.iter_any():
        checksum.feed(part)
    return web.Response(text=str(checksum))


async def download(request):
    size = int(request.query_string)
    response = web.StreamResponse(headers={"Content-Length": str(size)})
    await response.prepare(request)
    for chunk in chunks(size):
        await response.write(chunk)
        state["sent"] += len(chunk)
    return response


def main(kind, tls=None):
    if kind == "veloop":
        import veloop

        new_event_loop = veloop.new_event_loop
    else:
        new_event_loop = asyncio.SelectorEventLoop
    context = None
    if tls:
        sys.path.append(os.fspath(Path(__file__).resolve().parent.parent))
        from certificates import server_context

        context = server_context()
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/", query),
            web.post("/", echo),
            web.get("/loop", loop),
            web.get("/state", tell_state),
            web.post("/upload", upload),
            web.get("/download", download),
        ]
    )
    options = {"access_log": None, "ssl_context": context, "loop": new_event_loop()}
    # The access log would cost more than the server.
    web.run_app(app, host="127.0.0.1", port=0, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
