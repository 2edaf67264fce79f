"""libuv status -> exception: the only file that knows about libuv's error numbers.

It goes by libuv's error *names*, not numbers: on Windows a status is not ``-errno``.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading

from . import ffi, lib

if sys.platform == "win32":
    from ctypes import FormatError

    def _os_error(number: int) -> OSError:
        if number < 10000:
            return OSError(number, os.strerror(number))
        # errno has Winsock's number: as from the socket module, for the C library knows no text.
        return OSError(None, FormatError(number), None, number)
else:

    def _os_error(number: int) -> OSError:
        return OSError(number, os.strerror(number))


# Names of libuv's that the errno module lacks on some platform -> the nearest it has.
_NEAREST = {
    "UNKNOWN": errno.EIO,
    "ECHARSET": errno.EILSEQ,
    "EFTYPE": errno.EINVAL,
    "ENONET": errno.ENETUNREACH,
    "EREMOTEIO": errno.EIO,
    "ESOCKTNOSUPPORT": errno.EPROTONOSUPPORT,
    "EUNATCH": errno.EIO,
    "ENODATA": errno.EIO,
    "EOF": errno.ECONNRESET,
}

# libuv has one EAI name for what some systems call differently.
_EAI_NEAREST = {"EAI_BADHINTS": "EAI_BADFLAGS", "EAI_PROTOCOL": "EAI_SERVICE"}


def error(status: int) -> OSError | RuntimeError:
    """The exception for a negative libuv status: OSError picks its subclass by itself."""
    if status == lib.VL_EFOREIGN:
        owner = lib.vl_refused_owner()
        return foreign_thread(owner) if owner else forked()
    if status == lib.VL_ENOTHREAD:
        return RuntimeError("can't start new thread")  # as threading has it
    name = ffi.string(lib.uv_err_name(status)).decode()
    if name.startswith("EAI_"):
        return _gaierror(status, name)
    number = getattr(errno, name, None)
    if number is None:
        number = _NEAREST.get(name, errno.EIO)
        return OSError(number, ffi.string(lib.uv_strerror(status)).decode())
    return _os_error(number)


def check(status: int) -> int:
    """Raise the exception for a negative status; return any other."""
    if status < 0:
        raise error(status)
    return status


def _gaierror(status: int, name: str) -> socket.gaierror:
    number = getattr(socket, name, None)
    if number is None:
        number = getattr(socket, _EAI_NEAREST.get(name, ""), socket.EAI_FAIL)
        return socket.gaierror(number, ffi.string(lib.uv_strerror(status)).decode())
    if sys.platform == "win32":
        return socket.gaierror(number, "getaddrinfo failed")  # all that the socket module has there
    return socket.gaierror(number, ffi.string(lib.vl_eai_text(number)).decode(errors="replace"))


def forked() -> RuntimeError:
    """For the use of a loop that a forked child has from its parent."""
    return RuntimeError(
        f"this event loop belongs to the parent process; in process {os.getpid()}, which os.fork() "
        "made, it cannot be used: run a new one, with asyncio.run() or asyncio.Runner()"
    )


def foreign_thread(owner: int) -> RuntimeError:
    """The exception for a call from a thread that does not run the loop."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    caller = threading.get_ident()
    return RuntimeError(
        f"the event loop is running in thread {names.get(owner, '?')!r} ({owner}) and was called "
        f"from thread {names.get(caller, '?')!r} ({caller}); use loop.call_soon_threadsafe()"
    )
