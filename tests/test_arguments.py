"""arguments.py by itself; what the loop's methods make of it is in test_tcp_errors.py."""

import re
import socket

import pytest

from veloop.loop import arguments


class Integer:
    """As numpy's integers, which are no int."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize(
    "port",
    [Integer(0), Integer(65535), None, 0, 80, 65535, "0", "65535", b"80", "http", "", b"", True],
)
def test_good_ports(port):
    arguments.check_port("port", port)


@pytest.mark.parametrize(
    ("port", "exception"),
    [
        (-1, OverflowError),
        (65536, OverflowError),
        ("65536", OverflowError),
        (b"99999", OverflowError),
        (1.5, OSError),
        ([80], OSError),
        (Integer(65536), OverflowError),
    ],
)
def test_bad_ports_name_argument_and_value(port, exception):
    with pytest.raises(exception, match="local_port") as caught:
        arguments.check_port("local_port", port)
    assert str(port).strip("b'") in str(caught.value)


@pytest.mark.parametrize(
    "host", [None, "", b"", "localhost", b"localhost", "::1%lo", "bücher.example"]
)
def test_good_hosts(host):
    arguments.check_host("host", host)


@pytest.mark.parametrize(
    ("host", "exception"), [(5, TypeError), ([], TypeError), ("a\0b", ValueError)]
)
def test_bad_hosts_name_argument_and_value(host, exception):
    with pytest.raises(exception, match="host.*" + re.escape(repr(host))):
        arguments.check_host("host", host)


def test_bad_host_of_a_list_shows_the_list():
    with pytest.raises(TypeError, match=re.escape("hosts=['a', 5]: hosts must be")):
        arguments.check_hosts("hosts", ["a", 5])


@pytest.mark.parametrize(
    "address", [("a", 1), ["a", 1], ("::1", 1, 0), ("::1", 1, 0, 2), (None, 0)]
)
def test_good_addresses(address):
    arguments.check_address("local_addr", address)


@pytest.mark.parametrize(
    ("address", "exception"),
    [
        (5, TypeError),
        ("host", TypeError),
        (("a",), ValueError),
        (("a", 1, 0, 0, 0), ValueError),
        ((5, 1), TypeError),
        (("a", -1), OverflowError),
        (("a", []), OSError),
    ],
)
def test_bad_addresses_name_argument_and_value(address, exception):
    with pytest.raises(exception, match="local_addr") as caught:
        arguments.check_address("local_addr", address)
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (arguments.check_int, "x"),
        (arguments.check_int, 1.0),
        (arguments.check_delay, "x"),
        (arguments.check_callable, 42),
    ],
)
def test_wrong_types_name_argument_and_value(check, value):
    with pytest.raises(TypeError, match="the_name.*" + re.escape(repr(value))):
        check("the_name", value)


@pytest.mark.parametrize("backlog", [2**31, -(2**31) - 1, 2**70])
def test_backlog_fits_into_a_c_int(backlog):
    with pytest.raises(OverflowError, match=f"backlog.*{backlog}"):
        arguments.check_backlog(backlog)
    arguments.check_backlog(2**31 - 1)


def test_socket_must_be_a_stream_socket():
    with pytest.raises(AttributeError, match="sock must be a socket, not 'x'"):
        arguments.check_stream_socket("x")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match=re.escape(repr(sock))):
            arguments.check_stream_socket(sock)


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
def test_time_to_wait_must_be_positive(value):
    with pytest.raises(ValueError, match=f"x should be a positive number, got {value!r}"):
        arguments.check_positive("x", value)
    arguments.check_positive("x", 0.001)


def test_time_to_wait_must_be_a_number():
    with pytest.raises(TypeError, match="x must be a number of seconds or None, not '1'"):
        arguments.check_positive("x", "1")
