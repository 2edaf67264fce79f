"""dns.py: getaddrinfo and getnameinfo give what socket's functions give, errors included.

The grids use only what resolves without a network: numbers, /etc/hosts, and malformed names.
"""

import asyncio
import itertools
import socket
import textwrap

import pytest

from children import run_script
from helpers import LINUX, PYPY, async_outcome, has_ipv6, outcome, run, run_turns

cuts_flags = pytest.mark.skipif(PYPY, reason="PyPy's socket.getnameinfo cuts flags to 32 bits")

NUMERIC_HOSTS = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "1",
    "0.0.0.0",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "fe80::1",
    "fe80::1%1",
    "\uff11\uff12\uff17.0.0.1",
    b"127.0.0.1",
    b"::1",
    None,
]
# These would go out to a name server, if they were not looked up as numbers only.
OTHER_HOSTS = [
    "256.0.0.1",
    "fe80::1%no-such-interface",
    "::1::",
    "[::1]",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1:80",
    "localhost",
    b"localhost",
    "",
    b"",
    "..",
    "a" * 64,
    "a" * 5000,
    b"a" * 5000,
    "a." * 200,
    "b\u00fccher.invalid",
    b"\xff.invalid",
]
PORTS = [None, 80, "80", b"80", "http", b"http", 0]
ODD_PORTS = [65535, 65536, -1, 2**31, 2**40, "", "65536", "-1", "no-such-service", " 80"]
ODD_PORTS += [True, socket.AF_INET, 1.5, bytearray(b"80")]  # an integer must be a plain one
FAMILIES = [socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6]
TYPES = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]
PROTOS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP]
FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_NUMERICHOST,
    socket.AI_NUMERICSERV,
    socket.AI_CANONNAME,
    socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
]
if hasattr(socket, "AI_V4MAPPED"):
    FLAGS.append(socket.AI_V4MAPPED | getattr(socket, "AI_ALL", 0))
if hasattr(socket, "AI_ADDRCONFIG"):
    FLAGS.append(socket.AI_ADDRCONFIG)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def compare(loop, calls):
    """Both resolvers on each (host, port, keywords), and what differs."""

    async def main():
        different = []
        for host, port, keywords in calls:
            expected = outcome(socket.getaddrinfo, host, port, **keywords)
            got = await async_outcome(loop.getaddrinfo(host, port, **keywords))
            if got != expected:
                different.append((host, port, keywords, got, expected))
        return different

    assert run(loop, main()) == []


# ------------------------------------------------------------ getaddrinfo: same as socket's


@pytest.mark.parametrize("host", NUMERIC_HOSTS + OTHER_HOSTS, ids=lambda host: repr(host)[:30])
def test_every_combination_of_arguments_gives_what_socket_gives(loop, host):
    calls = []
    for port, family, kind, proto, flags in itertools.product(
        (None, 80, "http"), FAMILIES, TYPES, PROTOS, FLAGS
    ):
        if host in OTHER_HOSTS and not flags & socket.AI_NUMERICHOST:
            continue
        calls.append((host, port, {"family": family, "type": kind, "proto": proto, "flags": flags}))
    compare(loop, calls)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", b"localhost"])
def test_name_in_the_hosts_file_gives_what_socket_gives(loop, host):
    # Every system has 127.0.0.1 there, not every one has ::1.
    ipv4 = (0, socket.AF_INET)
    calls = [
        (host, port, {"family": family, "type": kind, "proto": proto})
        for port, family, kind, proto in itertools.product(PORTS, ipv4, TYPES, PROTOS)
    ]
    compare(loop, calls)


@pytest.mark.parametrize("port", PORTS + ODD_PORTS, ids=repr)
def test_every_port_gives_what_socket_gives(loop, port):
    grid = itertools.product(("127.0.0.1", "::1", "localhost", None), TYPES, FLAGS)
    compare(loop, [(host, port, {"type": kind, "flags": flags}) for host, kind, flags in grid])


@pytest.mark.parametrize(
    "keywords",
    [
        {"family": 99},
        {"family": -1},
        {"family": getattr(socket, "AF_UNIX", 1)},
        {"type": 99},
        {"type": -1},
        {"proto": 99},
        {"proto": -1},
        {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
        {"type": socket.SOCK_RAW, "proto": socket.IPPROTO_ICMP},
        {"flags": 0x7FFFFFFF},
        {"flags": -1},
        {"flags": 1 << 20},
        {"family": 2**40},
        {"type": 2**40},
        {"proto": 2**40},
        {"flags": 2**40},
    ],
    ids=str,
)
def test_odd_numbers_give_what_socket_gives(loop, keywords):
    compare(loop, [(host, port, keywords) for host in ("127.0.0.1", "::1") for port in (80, None)])


@pytest.mark.parametrize(
    ("host", "port", "keywords"),
    [
        (1, 80, {}),
        (1.5, 80, {}),
        ((), 80, {}),
        (object(), 80, {}),
        (bytearray(b"127.0.0.1"), 80, {}),
        ("127.0.0.1", 1.5, {}),
        ("127.0.0.1", [], {}),
        ("127.0.0.1", (), {}),
        ("127.0.0.1", 80, {"family": "inet"}),
        ("127.0.0.1", 80, {"type": None}),
        ("127.0.0.1", 80, {"proto": 1.5}),
        ("127.0.0.1", 80, {"flags": []}),
        ("127.0.0.1\0", 80, {}),
        (b"127.0.0.1\0", 80, {}),
        ("127.0.0.1", "80\0", {}),
        ("127.0.0.1", b"80\0", {}),
        ("127.0.0.1", "\udc80", {}),
        ("\udc80", 80, {}),
        ("a" * 64 + ".invalid", 80, {}),
        ("a..b", 80, {}),
        (None, None, {}),
        ("", "", {"flags": socket.AI_NUMERICHOST}),
        ("127.0.0.1", "\u0661", {}),
        ("127.0.0.1", True, {}),
    ],
    ids=repr,
)
def test_bad_arguments_raise_what_socket_raises(loop, host, port, keywords):
    compare(loop, [(host, port, keywords)])
    # And the loop is as good as before.
    assert run(loop, loop.getaddrinfo("127.0.0.1", 80))


@pytest.mark.parametrize("port", [2**64, -(2**64)])
def test_port_beyond_all_integers_is_refused(loop, port):
    # OverflowError on 3.11, the resolver's "service not supported" since.
    with pytest.raises((OverflowError, socket.gaierror)):
        run(loop, loop.getaddrinfo("127.0.0.1", port))


def test_family_and_type_are_enums(loop):
    infos = run(loop, loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    [(family, kind, proto, canonical, address)] = infos
    assert isinstance(family, socket.AddressFamily)
    assert isinstance(kind, socket.SocketKind)
    assert type(proto) is int
    assert canonical in ("", "127.0.0.1")  # musl tells it unasked
    assert type(address) is tuple
    assert address == ("127.0.0.1", 80)


def test_result_is_a_list_of_tuples(loop):
    infos = run(loop, loop.getaddrinfo("localhost", 80))
    assert type(infos) is list
    assert all(type(info) is tuple for info in infos)


def test_families_and_so_on_are_keywords_only(loop):
    with pytest.raises(TypeError):
        loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET)


# ------------------------------------------------------------ getaddrinfo: by name


def test_localhost(loop):
    infos = run(loop, loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM))
    assert {info[4][0] for info in infos} <= {"127.0.0.1", "::1"}
    assert infos == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


def test_name_of_this_machine(loop):
    name = socket.gethostname()
    expected = outcome(socket.getaddrinfo, name, 80)
    assert run(loop, async_outcome(loop.getaddrinfo(name, 80))) == expected


def test_name_that_does_not_exist(loop):
    # RFC 6761: .invalid never resolves. Which error it is depends on the network.
    with pytest.raises(socket.gaierror) as caught:
        run(loop, loop.getaddrinfo("no-such-host.invalid", 80))
    assert caught.value.errno in (
        socket.EAI_NONAME,
        socket.EAI_AGAIN,
        socket.EAI_FAIL,
        getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
    )
    assert caught.value.strerror


def test_error_has_the_systems_text(loop):
    numeric_only = {"flags": socket.AI_NUMERICHOST}
    with pytest.raises(socket.gaierror) as expected:
        socket.getaddrinfo("localhost", 80, **numeric_only)
    with pytest.raises(socket.gaierror) as caught:
        run(loop, loop.getaddrinfo("localhost", 80, **numeric_only))
    assert caught.value.args == expected.value.args


@needs_ipv6
@pytest.mark.skipif(not hasattr(socket, "if_nameindex"), reason="no names of interfaces here")
def test_scope_id_is_kept(loop):
    number, name = socket.if_nameindex()[0]
    for zone in (name, str(number)):
        infos = run(loop, loop.getaddrinfo(f"fe80::1%{zone}", 80, type=socket.SOCK_STREAM))
        assert infos[0][4] == ("fe80::1", 80, 0, number)


@pytest.mark.veloop_only("asyncio asks a thread for numeric hosts, too")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", None, b"127.0.0.1"])
def test_numeric_host_needs_no_thread(loop, host):
    # A thread's answer needs a poll, and a loop with callbacks at hand does not wait for one.
    async def resolve():
        return await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)

    task = loop.create_task(resolve())
    run_turns(loop, 2)
    assert task.done()
    assert task.result() == socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)


# ------------------------------------------------------------ many, cancelled, closed


def test_many_lookups_at_once(loop):
    async def main():
        return await asyncio.gather(
            *[loop.getaddrinfo("localhost", port) for port in range(1000, 1100)]
        )

    found = run(loop, main())
    assert found == [socket.getaddrinfo("localhost", port) for port in range(1000, 1100)]


def test_loop_stays_responsive_during_a_lookup(loop):
    async def main():
        turns = 0
        task = loop.create_task(loop.getaddrinfo("no-such-host.invalid", 80))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert isinstance(task.exception(), socket.gaierror)
        return turns

    assert run(loop, main()) > 1


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_lookup_can_be_cancelled(loop, turns):
    async def main():
        tasks = [loop.create_task(loop.getaddrinfo("localhost", port)) for port in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # Either it was cancelled or the answer was quicker.
        for port, task in enumerate(tasks):
            assert task.cancelled() or task.result() == socket.getaddrinfo("localhost", port)
        # Those that run on in threads do not disturb what comes next.
        return await loop.getaddrinfo("localhost", 80)

    assert run(loop, main())


@pytest.mark.parametrize("cancel", [True, False])
def test_loop_may_close_during_lookups(new_loop, cancel):
    loop = new_loop()
    tasks = [loop.create_task(loop.getaddrinfo("localhost", port)) for port in range(20)]
    names = loop.create_task(loop.getnameinfo(("127.0.0.1", 80)))
    run_turns(loop, 3)
    if cancel:
        for task in (*tasks, names):
            task.cancel()
        run_turns(loop, 2)
    loop.close()
    for task in (*tasks, names):
        task._log_destroy_pending = False
        if task.done() and not task.cancelled():
            task.exception()


def test_timeout_of_a_lookup(loop):
    async def main():
        try:
            async with asyncio.timeout(0.00001):
                return await loop.getaddrinfo("localhost", 80)
        except TimeoutError:
            return None

    assert run(loop, main()) in (None, socket.getaddrinfo("localhost", 80))


# ------------------------------------------------------------ getnameinfo

NAME_FLAGS = [
    0,
    socket.NI_NUMERICHOST,
    socket.NI_NUMERICSERV,
    socket.NI_NUMERICHOST | socket.NI_NUMERICSERV,
    socket.NI_NUMERICHOST | socket.NI_DGRAM,
    socket.NI_NUMERICHOST | socket.NI_NAMEREQD,
    socket.NI_NAMEREQD,
    socket.NI_NOFQDN,
]


def compare_names(loop, calls):
    async def main():
        different = []
        for arguments in calls:
            expected = outcome(socket.getnameinfo, *arguments)
            # asyncio makes flags optional.
            got = await async_outcome(loop.getnameinfo(*arguments))
            if got != expected:
                different.append((arguments, got, expected))
        return different

    assert run(loop, main()) == []


@pytest.mark.parametrize(
    "address",
    [
        ("127.0.0.1", 80),
        ("127.0.0.1", 0),
        ("127.0.0.1", 65535),
        ("127.0.0.1", 54321),
        pytest.param(("::1", 80), marks=needs_ipv6),
        pytest.param(("::1", 80, 0, 0), marks=needs_ipv6),
        pytest.param(("::1", 80, 5), marks=needs_ipv6),
    ],
    ids=repr,
)
def test_every_combination_of_flags_gives_what_socket_gives(loop, address):
    compare_names(loop, [(address, flags) for flags in NAME_FLAGS])


@needs_ipv6
@pytest.mark.skipif(not LINUX, reason="interface 1 is the loopback on Linux")
def test_name_of_a_scoped_address(loop):
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    address = ("fe80::1", 80, 0, 1)
    expected = socket.getnameinfo(address, numeric)
    assert expected[0].startswith("fe80::1%")
    assert run(loop, loop.getnameinfo(address, numeric)) == expected


@needs_ipv6
@pytest.mark.skipif(not LINUX, reason="interface 1 is the loopback on Linux")
@pytest.mark.parametrize("host", ["fe80::1%1", "fe80::1%lo", "fe80::1%", "fe80::1%no-such", "::1%"])
def test_zone_of_the_host_is_not_the_scope(loop, host):
    addresses = [(host, 80), (host, 80, 0, 0), (host, 80, 0, 1)]
    flags = [each for each in NAME_FLAGS if each & socket.NI_NUMERICHOST]
    compare_names(loop, [(address, each) for address in addresses for each in flags])


def test_flags_of_getnameinfo_are_optional(loop):
    expected = socket.getnameinfo(("127.0.0.1", 80), 0)
    assert run(loop, loop.getnameinfo(("127.0.0.1", 80))) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("127.0.0.1", 0),
        (["127.0.0.1", 80], 0),
        (None, 0),
        ((), 0),
        (("127.0.0.1",), 0),
        (("127.0.0.1", 80, 0, 0), 0),
        (("127.0.0.1", 80, 0, 0, 0), 0),
        (("localhost", 80), 0),
        (("no-such-host.invalid", 80), 0),
        (("", 80), 0),
        (("127.0.0.1", "80"), 0),
        (("127.0.0.1", None), 0),
        (("127.0.0.1", -1), socket.NI_NUMERICHOST),
        (("127.0.0.1", 65536), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        (("127.0.0.1", 2**40), 0),
        (("127.0.0.1", 80), "flags"),
        (("127.0.0.1", 80), None),
        pytest.param((("127.0.0.1", 80), 2**40), marks=cuts_flags),
        (("127.0.0.1", 80), -1),
        (("::1", 80, -1, 0), socket.NI_NUMERICHOST),
        (("::1", 80, 2**20, 0), socket.NI_NUMERICHOST),
        (("::1", 80, 0, 2**40), socket.NI_NUMERICHOST),
        ((b"127.0.0.1", 80), 0),
        (("127.0.0.1\0", 80), 0),
        (("127.0.0.1", 80.5), 0),
    ],
    ids=repr,
)
def test_bad_arguments_of_getnameinfo_raise_what_socket_raises(loop, arguments):
    compare_names(loop, [arguments])


def test_lookup_of_a_name_can_be_cancelled(loop):
    async def main():
        task = loop.create_task(loop.getnameinfo(("127.0.0.1", 80)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)

    assert run(loop, main())[0] == "127.0.0.1"


# ------------------------------------------------------------ when threads are short

SHORTAGE = """
    import encodings.idna, resource

    def limit(kib):
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + kib * 1024, resource.RLIM_INFINITY))

    async def look():
        return len(await asyncio.get_running_loop().getaddrinfo("localhost", 80)) > 0

    async def twice():
        for _ in range(2):
            try:
                print(await look())
            except RuntimeError as exc:
                print(exc)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
"""


@pytest.mark.skipif(not LINUX, reason="memory is limited by Linux only")
def test_lookup_without_a_thread_is_an_error(loop_kind):
    # The stacks of Python's threads, for musl's are smaller than what is left.
    script = "import threading\nthreading.stack_size(8 << 20)\n" + textwrap.dedent(SHORTAGE)
    script += "limit(4 << 10)\nrun(twice())\n"
    assert run_script(loop_kind, script).stdout.splitlines() == ["can't start new thread", "True"]


@pytest.mark.veloop_only("asyncio's executor fails with the first thread it cannot have")
@pytest.mark.skipif(not LINUX, reason="memory is limited by Linux only")
def test_lookups_are_content_with_few_threads(loop_kind):
    script = textwrap.dedent(SHORTAGE) + textwrap.dedent(
        """
        async def many():
            try:
                return await asyncio.gather(*[look() for _ in range(20)])
            finally:  # the end of the executor takes a thread, too
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

        run(asyncio.sleep(0))
        limit(20 << 10)  # each has a stack of 8 MiB
        print(all(run(many())))
        """
    )
    assert run_script(loop_kind, script).stdout == "True\n"
