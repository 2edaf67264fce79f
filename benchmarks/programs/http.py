"""HTTP servers that people run: "Hello, world!" over connections that are kept alive."""

from __future__ import annotations

import asyncio
from typing import Any

from programs import Aio, Kind, Served
from programs.echo import BACKLOG

BODY = b"Hello, world!"  # client.c and client.py have the same


async def application(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def uvicorn(aio: Aio) -> Served:
    try:
        import httptools  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise NotImplementedError(str(error)) from None
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=0,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        backlog=BACKLOG,
    )
    server = uvicorn.Server(config)
    serving = aio.create_task(server.serve())
    while not server.started:
        await asyncio.wait([serving], timeout=0.01)
        if serving.done():
            serving.result()
            raise RuntimeError("uvicorn ended")
    return "port", server.servers[0].sockets[0].getsockname()[1], serving


async def aiohttp(aio: Aio) -> Served:
    try:
        from aiohttp import web
    except ImportError as error:
        raise NotImplementedError(str(error)) from None

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG).start()
    return "port", runner.addresses[0][1], runner


KINDS: dict[str, Kind] = {"uvicorn": uvicorn, "aiohttp": aiohttp}
