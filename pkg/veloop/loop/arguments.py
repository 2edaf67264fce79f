"""Checks of what callers pass: asyncio's exception types, messages that name argument and value.

The socket module would refuse most of these too, some turns later and without saying which
argument it was.
"""

from __future__ import annotations

import operator
import socket
from typing import Any

try:
    from ssl import SSLSocket
except ImportError:  # a Python without OpenSSL

    class SSLSocket:  # type: ignore[no-redef]
        pass


def check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def check_int(name: str, value: object) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")


def check_delay(name: str, value: object) -> None:
    """None, or a number of seconds."""
    if value is not None and not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")


def check_backlog(backlog: object) -> None:
    check_int("backlog", backlog)
    if not -(1 << 31) <= backlog < 1 << 31:  # type: ignore[operator]
        raise OverflowError(f"backlog must fit into a C int, got {backlog!r}")


def check_host(name: str, host: object) -> None:
    if host is not None and not isinstance(host, (str, bytes)):
        raise TypeError(f"{name} must be a str, bytes or None, not {host!r}")
    if isinstance(host, str) and "\0" in host:
        raise ValueError(f"{name} must not contain a null character: {host!r}")


def check_hosts(name: str, hosts: list[Any]) -> None:
    for host in hosts:
        try:
            check_host(name, host)
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"{name}={hosts!r}: {exc}") from None


def check_port(name: str, port: object) -> None:
    """A number, a number as text, a service name, or None."""
    if isinstance(port, (str, bytes)):
        if not (port.isascii() and port.isdigit()):
            return
        number = int(port)
    elif port is None:
        return
    else:
        try:
            number = operator.index(port)  # type: ignore[arg-type]
        except TypeError:
            message = f"{name} must be an integer, str, bytes or None, not {port!r}"
            raise OSError(message) from None
    if not 0 <= number <= 0xFFFF:
        raise OverflowError(f"{name} must be 0-65535, got {port!r}")


def check_address(name: str, address: Any) -> None:
    """A tuple (host, port), for IPv6 maybe with flow information and scope id."""
    if not isinstance(address, (tuple, list)):
        raise TypeError(f"{name} must be a tuple (host, port), not {address!r}")
    if not 2 <= len(address) <= 4:
        raise ValueError(f"{name} must be a tuple (host, port), not {address!r}")
    try:
        check_host("host", address[0])
        check_port("port", address[1])
    except (TypeError, ValueError, OverflowError, OSError) as exc:
        raise type(exc)(f"{name}={address!r}: {exc}") from None


def check_no_tls_socket(sock: socket.socket | None) -> None:
    if isinstance(sock, SSLSocket):
        raise TypeError(f"Socket cannot be of type SSLSocket: {sock!r}")


def check_stream_socket(sock: socket.socket) -> None:
    if not hasattr(sock, "type"):
        raise AttributeError(f"sock must be a socket, not {sock!r}")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")


def check_positive(name: str, value: object) -> None:
    """A number of seconds to wait for something."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} should be a positive number, got {value!r}")
