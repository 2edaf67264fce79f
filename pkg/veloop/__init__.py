"""veloop: an asyncio event loop on libuv, for every Python and platform.

veloop.run(main())                                    # in place of asyncio.run
asyncio.run(main(), loop_factory=veloop.new_event_loop)
python -m veloop script.py                            # any asyncio program, unchanged
"""

from typing import TYPE_CHECKING, Any

from ._uv import ffi, lib
from .loop import EventLoop, new_event_loop
from .runners import Runner, run

if TYPE_CHECKING:
    from .policies import EventLoopPolicy, install

__all__ = [
    "EventLoop",
    "EventLoopPolicy",
    "Runner",
    "__version__",
    "install",
    "libuv_version",
    "new_event_loop",
    "run",
]

__version__ = "0.1.0"

libuv_version: str = ffi.string(lib.uv_version_string()).decode()
del ffi, lib


def __getattr__(name: str) -> Any:
    # Policies are deprecated, and absent from Python 3.16 on: looked up only when asked for.
    if name in ("EventLoopPolicy", "install"):
        from . import policies

        return getattr(policies, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
