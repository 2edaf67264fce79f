"""What the loops are given to do. Every column runs these same functions.

A program gets the module that it is to use as `aio`: asyncio, or one with the same names (the
column veloop passes veloop). Nothing here may ask which loop it runs on or which module it got.
Protocols are the same classes in all such modules, so they are asyncio's here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Aio = Any  # a module with asyncio's names: Python has no type for that
Program = Callable[[Aio, int], Awaitable[None]]  # does so many operations
# "port" or "path", its value, and what has to stay referenced while the server serves.
Served = tuple[str, object, object]
Figure = Callable[[Aio, float], Awaitable[float]]  # takes so many seconds
Kind = Callable[[Aio], Awaitable[Served]]  # starts a server


class Wrong(Exception):
    """The loop or the module did not do what it was asked to: its figure would mean nothing."""


def check(condition: bool, words: str) -> None:
    if not condition:
        raise Wrong(words)
