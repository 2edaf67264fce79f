"""The event loop, one file per asyncio area; `loop.py` is the facade."""

from .loop import EventLoop, new_event_loop

__all__ = ["EventLoop", "new_event_loop"]
