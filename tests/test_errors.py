"""errors.py of the C boundary: a libuv status becomes the exception Python itself would raise.

veloop's own code, so there is no other loop to compare with: the system's errno and socket are.
"""

import errno
import os
import socket
import sys

import pytest

# UV_ERRNO_MAP of libuv 1.52.1, and the numbers of those that are no errno here (uv/errno.h).
NAMES = """
    E2BIG EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBUSY ECANCELED
    ECHARSET ECONNABORTED ECONNREFUSED ECONNRESET EDESTADDRREQ EEXIST EFAULT EFBIG EHOSTUNREACH
    EINTR EINVAL EIO EISCONN EISDIR ELOOP EMFILE EMSGSIZE ENAMETOOLONG ENETDOWN ENETUNREACH ENFILE
    ENOBUFS ENODEV ENOENT ENOMEM ENONET ENOPROTOOPT ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTEMPTY
    ENOTSOCK ENOTSUP EOVERFLOW EPERM EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE ERANGE EROFS ESHUTDOWN
    ESPIPE ESRCH ETIMEDOUT ETXTBSY EXDEV UNKNOWN EOF ENXIO EMLINK EHOSTDOWN EREMOTEIO ENOTTY EFTYPE
    EILSEQ ESOCKTNOSUPPORT ENODATA EUNATCH ENOEXEC
""".split()
EAI_NUMBERS = {
    "EAI_ADDRFAMILY": -3000,
    "EAI_AGAIN": -3001,
    "EAI_BADFLAGS": -3002,
    "EAI_CANCELED": -3003,
    "EAI_FAIL": -3004,
    "EAI_FAMILY": -3005,
    "EAI_MEMORY": -3006,
    "EAI_NODATA": -3007,
    "EAI_NONAME": -3008,
    "EAI_OVERFLOW": -3009,
    "EAI_SERVICE": -3010,
    "EAI_SOCKTYPE": -3011,
    "EAI_BADHINTS": -3013,
    "EAI_PROTOCOL": -3014,
}
OWN_NUMBERS = {"EOF": -4095, "UNKNOWN": -4094, "ECHARSET": -4080, "EFTYPE": -4028}

SUBCLASSES = {
    "EACCES": PermissionError,
    "EAGAIN": BlockingIOError,
    "EALREADY": BlockingIOError,
    "ECONNABORTED": ConnectionAbortedError,
    "ECONNREFUSED": ConnectionRefusedError,
    "ECONNRESET": ConnectionResetError,
    "EEXIST": FileExistsError,
    "EINTR": InterruptedError,
    "EISDIR": IsADirectoryError,
    "ENOENT": FileNotFoundError,
    "ENOTDIR": NotADirectoryError,
    "EPERM": PermissionError,
    "EPIPE": BrokenPipeError,
    "ESHUTDOWN": BrokenPipeError,
    "ESRCH": ProcessLookupError,
    "ETIMEDOUT": TimeoutError,
}


@pytest.fixture
def errors():
    from veloop._uv import errors

    return errors


def is_named(status, name):
    """Whether libuv calls that status so."""
    from veloop._uv import ffi, lib

    return ffi.string(lib.uv_err_name(status)).decode() == name


def status_of(name):
    """What libuv gives for that name on this system."""
    if name in EAI_NUMBERS:
        return EAI_NUMBERS[name]
    # Python may have been made with a newer C library than libuv, and know more numbers.
    if name in OWN_NUMBERS and is_named(OWN_NUMBERS[name], name):
        return OWN_NUMBERS[name]
    if sys.platform != "win32" and hasattr(errno, name):
        return -getattr(errno, name)
    pytest.skip(f"libuv's number of {name} is its own here")


def test_names_are_libuvs(errors):
    for name in [*NAMES, *EAI_NUMBERS]:
        if sys.platform != "win32" and (name in EAI_NUMBERS or hasattr(errno, name)):
            assert is_named(status_of(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_status_becomes_an_oserror(errors, name):
    exception = errors.error(status_of(name))
    assert isinstance(exception, OSError)
    assert not isinstance(exception, socket.gaierror)
    assert isinstance(exception.errno, int)
    assert exception.errno > 0
    assert exception.strerror
    assert len(exception.args) == 2


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(errno, name)])
def test_number_and_text_are_the_systems(errors, name):
    exception = errors.error(status_of(name))
    number = getattr(errno, name)
    assert exception.args == (number, os.strerror(number))
    assert type(exception) is type(OSError(number, ""))


@pytest.mark.parametrize(("name", "kind"), SUBCLASSES.items())
def test_subclass_is_the_one_python_has_for_it(errors, name, kind):
    if hasattr(errno, name):
        assert type(errors.error(status_of(name))) is kind


@pytest.mark.parametrize("name", EAI_NUMBERS)
def test_resolver_status_becomes_a_gaierror(errors, name):
    exception = errors.error(status_of(name))
    assert type(exception) is socket.gaierror
    assert exception.strerror
    if hasattr(socket, name):
        assert exception.errno == getattr(socket, name)
    assert exception.errno in {
        getattr(socket, each) for each in dir(socket) if each.startswith("EAI_")
    }


def test_resolver_error_has_the_systems_text(errors):
    with pytest.raises(socket.gaierror) as expected:
        socket.getaddrinfo("localhost", 80, flags=socket.AI_NUMERICHOST)
    assert errors.error(status_of("EAI_NONAME")).args == expected.value.args


@pytest.mark.parametrize("status", [-9999, -29999, -(2**31)])
def test_status_nobody_knows_is_still_an_oserror(errors, status):
    exception = errors.error(status)
    assert isinstance(exception, OSError)
    assert exception.strerror


def test_cancelled_request_is_an_oserror_here(errors):
    # Only the request that was cancelled knows that it means CancelledError.
    assert errors.error(status_of("ECANCELED")).errno == errno.ECANCELED


@pytest.mark.parametrize("name", ["ECONNREFUSED", "EINVAL", "EAI_NONAME", "UNKNOWN"])
def test_check_raises_what_error_returns(errors, name):
    expected = errors.error(status_of(name))
    with pytest.raises(type(expected)) as caught:
        errors.check(status_of(name))
    assert caught.value.args == expected.args


@pytest.mark.parametrize("status", [0, 1, 12345])
def test_check_of_success_raises_nothing(errors, status):
    errors.check(status)


def test_error_is_a_new_exception_each_time(errors):
    # A shared one would collect tracebacks.
    status = status_of("ECONNRESET")
    assert errors.error(status) is not errors.error(status)
