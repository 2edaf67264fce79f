"""An aiohttp server and a client session for it, on one loop, for the tests of aiohttp."""

import aiohttp
from aiohttp import web


class Site:
    """An aiohttp server, with a client session for it.

    On a free port; with the TLS context `tls`, where it is given; or at `unix_path`.
    """

    def __init__(self, *routes, timeout=None, connector=None, tls=None, unix_path=None, **options):
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(routes)
        self.app = app
        self.runner = web.AppRunner(app, **{"access_log": None, "shutdown_timeout": 0.1} | options)
        self._timeout = timeout or aiohttp.ClientTimeout(total=20)
        self._connector = connector
        self._tls = tls
        self._unix_path = unix_path

    async def __aenter__(self):
        await self.runner.setup()
        if self._unix_path is not None:
            await web.UnixSite(self.runner, self._unix_path).start()
            self.url = "http://localhost"
        else:
            # Connections that come all at once and don't fit would come again a second later.
            site = web.TCPSite(self.runner, "127.0.0.1", 0, backlog=512, ssl_context=self._tls)
            await site.start()
            self.host, self.port = self.runner.addresses[0]
            self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        self.session = aiohttp.ClientSession(
            self.url,
            timeout=self._timeout,
            connector=self._connector() if self._connector else None,
        )
        return self

    async def __aexit__(self, *exc_info):
        await self.session.close()
        await self.runner.cleanup()


async def query(request):
    return web.Response(text=request.query_string)
