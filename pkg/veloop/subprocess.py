"""Still asyncio's."""

from asyncio import (
    create_subprocess_exec,
    create_subprocess_shell,
)

__all__ = (
    "create_subprocess_exec",
    "create_subprocess_shell",
)
