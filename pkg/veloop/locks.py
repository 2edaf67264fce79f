"""Still asyncio's."""

from asyncio import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    Semaphore,
)

__all__ = (
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "Semaphore",
)
