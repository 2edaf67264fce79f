"""uvicorn, started by its command line on either loop."""

import functools
import importlib.util

from started_servers import Server

HTTP = "httptools" if importlib.util.find_spec("httptools") else "h11"  # PyPy has no wheel of it
LOOP_OPTION = {"veloop": "veloop:new_event_loop", "asyncio": "asyncio"}


def uvicorn(kind, *arguments, options=("-W", "error"), **env):
    """A uvicorn that serves asgi_app on a free port, or where `arguments` say."""
    common = ["--http", HTTP, "--port", "0", "--no-access-log", "--no-use-colors"]
    command = ["-m", "uvicorn", "--loop", LOOP_OPTION[kind], *common, *arguments]
    return Server(kind, *command, "asgi_app:app", options=options, **env)


@functools.cache
def stock_exit_code(signum):
    """What uvicorn exits with on asyncio; it has changed with its versions."""
    with uvicorn("asyncio") as server:
        return server.stop(signum)
