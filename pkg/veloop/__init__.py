"""veloop: an asyncio event loop on libuv and the asyncio module around it.

import veloop as asyncio                              # everything asyncio has, by its names
veloop.run(main())                                    # in place of asyncio.run
asyncio.run(main(), loop_factory=veloop.new_event_loop)
python -m veloop script.py                            # any asyncio program, unchanged

What is defined here works on any asyncio loop; what asyncio has and veloop does not define is
asyncio's own, under the same name.
"""

import asyncio as _asyncio
import sys
from asyncio import (
    AbstractEventLoop,
    AbstractServer,
    BaseEventLoop,
    BaseProtocol,
    BaseTransport,
    BufferedProtocol,
    DatagramProtocol,
    DatagramTransport,
    Handle,
    Protocol,
    ReadTransport,
    Server,
    SubprocessProtocol,
    SubprocessTransport,
    TimerHandle,
    Transport,
    WriteTransport,
    iscoroutine,
    iscoroutinefunction,
)
from functools import partial as _partial
from importlib import import_module as _import_module
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING, Any

from . import subprocess
from ._accelerate import accelerated
from ._uv import ffi, lib
from .events import get_event_loop, get_running_loop, set_event_loop
from .exceptions import (
    BrokenBarrierError,
    CancelledError,
    IncompleteReadError,
    InvalidStateError,
    LimitOverrunError,
    SendfileNotAvailableError,
    TimeoutError,
)
from .futures import (
    Future,
    future_add_to_awaited_by,
    future_discard_from_awaited_by,
    isfuture,
    wrap_future,
)
from .locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from .loop import EventLoop, new_event_loop
from .queues import LifoQueue, PriorityQueue, Queue, QueueEmpty, QueueFull, QueueShutDown
from .runners import Runner, run
from .streams import (
    StreamReader,
    StreamReaderProtocol,
    StreamWriter,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from .subprocess import create_subprocess_exec, create_subprocess_shell
from .taskgroups import TaskGroup
from .tasks import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    Task,
    all_tasks,
    as_completed,
    create_eager_task_factory,
    create_task,
    current_task,
    eager_task_factory,
    ensure_future,
    gather,
    run_coroutine_threadsafe,
    shield,
    sleep,
    wait,
)
from .threads import to_thread
from .timeouts import Timeout, timeout, timeout_at, wait_for

if TYPE_CHECKING:
    from .graph import (
        FrameCallGraphEntry,
        FutureCallGraph,
        capture_call_graph,
        format_call_graph,
        print_call_graph,
    )
    from .policies import EventLoopPolicy as EventLoopPolicy
    from .policies import install as install

__version__ = "0.1.0"

libuv_version: str = ffi.string(lib.uv_version_string()).decode()
del ffi, lib

__all__ = [
    "ALL_COMPLETED",
    "AbstractEventLoop",
    "AbstractServer",
    "Barrier",
    "BaseEventLoop",
    "BaseProtocol",
    "BaseTransport",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "BufferedProtocol",
    "CancelledError",
    "Condition",
    "DatagramProtocol",
    "DatagramTransport",
    "Event",
    "EventLoop",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "FrameCallGraphEntry",
    "Future",
    "FutureCallGraph",
    "Handle",
    "IncompleteReadError",
    "InvalidStateError",
    "LifoQueue",
    "LimitOverrunError",
    "Lock",
    "PriorityQueue",
    "Protocol",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "ReadTransport",
    "Runner",
    "Semaphore",
    "SendfileNotAvailableError",
    "Server",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "SubprocessProtocol",
    "SubprocessTransport",
    "Task",
    "TaskGroup",
    "Timeout",
    "TimeoutError",
    "TimerHandle",
    "Transport",
    "WriteTransport",
    "__version__",
    "accelerated",
    "all_tasks",
    "as_completed",
    "capture_call_graph",
    "create_eager_task_factory",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "create_task",
    "current_task",
    "eager_task_factory",
    "ensure_future",
    "format_call_graph",
    "future_add_to_awaited_by",
    "future_discard_from_awaited_by",
    "gather",
    "get_event_loop",
    "get_running_loop",
    "iscoroutine",
    "iscoroutinefunction",
    "isfuture",
    "libuv_version",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "print_call_graph",
    "run",
    "run_coroutine_threadsafe",
    "set_event_loop",
    "shield",
    "sleep",
    "start_server",
    "start_unix_server",
    "subprocess",
    "timeout",
    "timeout_at",
    "to_thread",
    "wait",
    "wait_for",
    "wrap_future",
]

# Python 3.16 has no policies any more, and 3.14 deprecates them: imported only when asked for.
_POLICIES = ("EventLoopPolicy", "install") if sys.version_info < (3, 16) else ()

# asyncio's own classes of loops, policies and child watchers, where this Python has them.
__all__ += sorted({*_POLICIES, *_asyncio.__all__}.difference(__all__))


# Its dataclasses take longer to make than everything else here, and few programs want them.
_GRAPH = (
    *("FrameCallGraphEntry", "FutureCallGraph"),
    *("capture_call_graph", "format_call_graph", "print_call_graph"),
)


# A module of ours that stands where programs expect asyncio's of that name also has what else
# is there: `asyncio.tasks._current_tasks` or `asyncio.events.Handle`. graph sees to it itself.
for _name, _module in list(globals().items()):
    _stock = getattr(_asyncio, _name, None)
    if isinstance(_stock, _ModuleType) and _stock.__name__ == f"asyncio.{_name}":
        _module.__getattr__ = _partial(getattr, _stock)
del _name, _module, _stock


def __getattr__(name: str) -> Any:
    if name == "graph" or name in _GRAPH:
        graph = _import_module("veloop.graph")
        return graph if name == "graph" else getattr(graph, name)
    if name in _POLICIES:
        from . import policies

        return getattr(policies, name)
    if not name.startswith("__") and hasattr(_asyncio, name):
        theirs = getattr(
            _asyncio, name
        )  # from 3.14 on, this warns of all that has to do with policies
        if name == "DefaultEventLoopPolicy":
            from .policies import EventLoopPolicy

            return EventLoopPolicy
        return theirs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
