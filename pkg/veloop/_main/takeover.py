"""Make a program that never heard of veloop run on it.

Every way to a loop of asyncio ends in one of two classes, on every Python: asyncio.run, Runner,
new_event_loop, get_event_loop and the policies (up to 3.15) call the default one, and servers such
as uvicorn pass it as loop_factory. So it is the classes that answer with a veloop loop. No
policy is set, hence nothing is deprecated on 3.14 and nothing is missing on 3.16.

What stays: subclasses of these classes, loops made with a selector or proactor of the program's
own, and loops of other packages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..loop import new_event_loop


def use_veloop() -> object:
    """Have asyncio make veloop's loops in this process and in its multiprocessing children."""
    for name in ("SelectorEventLoop", "ProactorEventLoop"):
        stock = getattr(asyncio, name, None)
        if stock is not None:
            stock.__new__ = staticmethod(_instead_of(stock))
    return _use_in_children()


def _instead_of(stock: type[Any]) -> Callable[..., object]:
    def __new__(cls: type, *args: Any, **kwargs: Any) -> object:
        given = [arg for arg in (*args, *kwargs.values()) if arg is not None]
        if cls is stock and not given:
            return new_event_loop()  # no instance of cls, so cls.__init__ is not called
        return super(stock, cls).__new__(cls)

    return __new__


class _ForChildren:
    """Is pickled along with every multiprocessing.Process; unpickling it calls use_veloop()."""

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return use_veloop, ()


def _use_in_children() -> object:
    # Forked children need nothing; spawned ones, and those of a fork server, start anew.
    marker = _ForChildren()
    try:
        from multiprocessing.process import current_process
    except ImportError:  # platforms without processes
        return marker
    config: dict[str, object] = getattr(current_process(), "_config", {})
    config["veloop"] = marker  # every Process starts with a copy of its parent's
    return marker
