"""veloop: an asyncio event loop on libuv, for every Python and platform.

veloop.run(main())                                    # in place of asyncio.run
asyncio.run(main(), loop_factory=veloop.new_event_loop)
python -m veloop script.py                            # any asyncio program, unchanged
"""

import sys
from typing import TYPE_CHECKING, Any

from ._uv import ffi, lib
from .loop import EventLoop, new_event_loop
from .runners import Runner, run

if TYPE_CHECKING:
    from .policies import EventLoopPolicy, install

__all__ = [
    "EventLoop",
    "Runner",
    "__version__",
    "libuv_version",
    "new_event_loop",
    "run",
]

__version__ = "0.1.0"

libuv_version: str = ffi.string(lib.uv_version_string()).decode()
del ffi, lib


# Python 3.16 has no policies any more, and 3.14 deprecates them: imported only when asked for.
if sys.version_info < (3, 16):
    __all__ += ["EventLoopPolicy", "install"]

    def __getattr__(name: str) -> Any:
        if name in ("EventLoopPolicy", "install"):
            from . import policies

            return getattr(policies, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
