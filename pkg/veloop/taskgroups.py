"""Still asyncio's."""

from asyncio import (
    TaskGroup,
)

__all__ = ("TaskGroup",)
