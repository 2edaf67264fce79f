"""Still asyncio's."""

from asyncio import (
    Timeout,
    timeout,
    timeout_at,
    wait_for,
)

__all__ = (
    "Timeout",
    "timeout",
    "timeout_at",
    "wait_for",
)
