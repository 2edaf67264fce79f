"""_uv/sockaddr.py: struct sockaddr, compared with what the kernel and Python make of it."""

import ctypes
import random
import socket

import pytest

from helpers import LINUX, WINDOWS, has_ipv6, import_veloop, tcp_pair

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
unix = pytest.mark.skipif(WINDOWS, reason="no Unix sockets")


@pytest.fixture
def sockaddr():
    import_veloop()
    from veloop._uv import sockaddr

    return sockaddr


def raw_name(sock):
    """The bytes that the kernel has for a socket's own address."""
    buffer = ctypes.create_string_buffer(128)
    size = ctypes.c_int(128)
    libc = ctypes.CDLL(None)
    assert libc.getsockname(sock.fileno(), buffer, ctypes.byref(size)) == 0
    return buffer.raw[: size.value]


@pytest.mark.skipif(WINDOWS, reason="no getsockname in the C library")
@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6),
        pytest.param(socket.AF_INET6, "::", marks=needs_ipv6),
    ],
)
def test_packed_address_is_the_kernels(sockaddr, family, host):
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        name = sock.getsockname()
        raw = raw_name(sock)
        assert sockaddr.pack(family, name) == raw
        assert sockaddr.unpack(raw) == name
        assert sockaddr.family(raw) == family


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, ("1.2.3.4", 0)),
        (socket.AF_INET, ("255.255.255.255", 65535)),
        (socket.AF_INET6, ("::", 0, 0, 0)),
        (socket.AF_INET6, ("::1", 65535, 0, 0)),
        (socket.AF_INET6, ("2001:db8::1:2", 80, 0xFFFFF, 0)),
        (socket.AF_INET6, ("fe80::1", 80, 0, 4294967295)),
        (socket.AF_INET6, ("::ffff:1.2.3.4", 256, 1, 1)),
    ],
)
def test_unpack_is_the_inverse_of_pack(sockaddr, family, address):
    assert sockaddr.unpack(sockaddr.pack(family, address)) == address


def test_random_addresses_survive(sockaddr):
    rng = random.Random(1)
    for _ in range(2000):
        host = socket.inet_ntop(socket.AF_INET, rng.randbytes(4))
        address = (host, rng.randrange(65536))
        assert sockaddr.unpack(sockaddr.pack(socket.AF_INET, address)) == address
        host = socket.inet_ntop(socket.AF_INET6, rng.randbytes(16))
        address = (host, rng.randrange(65536), rng.randrange(1 << 20), rng.randrange(1 << 32))
        assert sockaddr.unpack(sockaddr.pack(socket.AF_INET6, address)) == address


def test_ipv6_address_without_flow_and_scope(sockaddr):
    raw = sockaddr.pack(socket.AF_INET6, ("::1", 80))
    assert sockaddr.unpack(raw) == ("::1", 80, 0, 0)
    raw = sockaddr.pack(socket.AF_INET6, ("::1", 80, 7))
    assert sockaddr.unpack(raw) == ("::1", 80, 7, 0)


def test_zone_is_the_scope(sockaddr):
    index, name = socket.if_nameindex()[0]
    for zone in (name, str(index)):
        raw = sockaddr.pack(socket.AF_INET6, (f"fe80::1%{zone}", 80))
        assert sockaddr.unpack(raw) == ("fe80::1", 80, 0, index)
    # A scope that is given comes first, as getaddrinfo gives both.
    raw = sockaddr.pack(socket.AF_INET6, (f"fe80::1%{name}", 80, 0, 99))
    assert sockaddr.unpack(raw) == ("fe80::1", 80, 0, 99)


def test_zone_that_is_no_interface(sockaddr):
    with pytest.raises(OSError, match="."):
        sockaddr.pack(socket.AF_INET6, ("fe80::1%no-such-interface", 80))


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_port_out_of_range_is_an_overflow(sockaddr, family, port):
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with pytest.raises(OverflowError):
        sockaddr.pack(family, (host, port))


@pytest.mark.parametrize("host", ["", "localhost", "1.2.3", "1.2.3.4.5", "::1"])
def test_host_that_is_no_number(sockaddr, host):
    with pytest.raises(OSError, match="illegal IP address"):
        sockaddr.pack(socket.AF_INET, (host, 80))


def test_nothing_is_no_address(sockaddr):
    assert sockaddr.unpack(b"") is None


@unix
def test_unix_paths(sockaddr, tmp_path):
    for name in ("plain", "with space", "\N{SNOWMAN}", "\udcff-not-utf8"):
        path = str(tmp_path / name)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            assert sockaddr.unpack(raw_name(sock)) == sock.getsockname() == path
            assert sockaddr.family(raw_name(sock)) == socket.AF_UNIX


@unix
def test_unix_socket_without_a_name(sockaddr):
    left, right = socket.socketpair()
    with left, right:
        assert sockaddr.unpack(raw_name(left)) == left.getsockname() == ""


@pytest.mark.skipif(not LINUX, reason="Linux's abstract names")
@pytest.mark.parametrize("name", [b"\0veloop-sockaddr", b"\0", b"\0a\0b", b"\0\xff\xfe"])
def test_abstract_unix_names(sockaddr, name):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name if len(name) > 1 else "")  # the kernel chooses a name for ""
        assert sockaddr.unpack(raw_name(sock)) == sock.getsockname()


@pytest.mark.skipif(WINDOWS, reason="no getsockname in the C library")
def test_names_of_a_connection(sockaddr):
    with tcp_pair() as (client, server):
        assert sockaddr.unpack(raw_name(client)) == client.getsockname() == server.getpeername()
