"""Still asyncio's."""

from asyncio import (
    to_thread,
)

__all__ = ("to_thread",)
