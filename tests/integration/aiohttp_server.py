"""An aiohttp server as README tells to start it, for load.py: `python aiohttp_server.py veloop`."""

import asyncio
import sys

from aiohttp import web


async def query(request):
    return web.Response(text=request.query_string)


async def echo(request):
    return web.Response(body=await request.read())


async def loop(request):
    kind = type(asyncio.get_running_loop())
    return web.Response(text=f"{kind.__module__}.{kind.__qualname__}")


def main(kind):
    if kind == "veloop":
        import veloop

        new_event_loop = veloop.new_event_loop
    else:
        new_event_loop = asyncio.SelectorEventLoop
    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.get("/", query), web.post("/", echo), web.get("/loop", loop)])
    # The access log would cost more than the server.
    web.run_app(app, host="127.0.0.1", port=0, access_log=None, loop=new_event_loop())


if __name__ == "__main__":
    main(*sys.argv[1:])
