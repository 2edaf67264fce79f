"""dns.py: what else has a part in a look-up: the socket module's functions, audit hooks, the log,
the default executor, and the collector."""

import asyncio
import gc
import logging
import socket
import weakref

import pytest

from children import run_script
from helpers import PYPY, listening_socket, run


def test_function_that_a_program_puts_into_the_socket_module_is_asked(loop, monkeypatch):
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
    monkeypatch.setattr(socket, "getnameinfo", lambda address, flags: ("name", "port"))

    async def main():
        assert await loop.getaddrinfo("no.such.name.invalid", 80) == answer
        assert await loop.getaddrinfo("127.0.0.1", 80) == answer
        assert await loop.getnameinfo(("127.0.0.1", 80)) == ("name", "port")
        await loop.shutdown_default_executor()

    run(loop, main())


def test_guard_that_a_program_puts_before_connect_is_asked(loop, monkeypatch):
    asked = []

    def refuse(sock, address):
        asked.append(address)
        raise PermissionError(1, "not in tests")

    async def main(address):
        with pytest.raises(PermissionError):
            await loop.create_connection(asyncio.Protocol, *address)
        return asked

    with listening_socket() as listener:
        monkeypatch.setattr(socket.socket, "connect", refuse)
        address = listener.getsockname()[:2]
        assert run(loop, main(address)) == [address]


def test_audit_hooks_are_told(loop_kind):
    script = """
        import sys

        async def main():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            events.clear()
            await loop.getaddrinfo("localhost", 80)
            await loop.getaddrinfo("127.0.0.1", 80)
            await loop.getnameinfo(("127.0.0.1", 80))
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            print(*events)
            transport.close()
            server.close()

        events = []
        watched = {"socket.getaddrinfo", "socket.getnameinfo", "socket.connect"}
        sys.addaudithook(lambda event, args: event in watched and events.append(event))
        run(main())
    """
    told = "socket.getaddrinfo socket.getaddrinfo socket.getnameinfo socket.connect\n"
    assert run_script(loop_kind, script).stdout == told


@pytest.mark.skipif(PYPY, reason="counts no references")
def test_failed_lookup_keeps_nobodys_locals(loop):
    class Local:
        pass

    async def look(address, into):
        local = Local()
        into.append(weakref.ref(local))
        with pytest.raises(OSError):
            if isinstance(address, str):
                await loop.getaddrinfo(address, 80)
            else:
                await loop.getnameinfo(address, socket.NI_NAMEREQD)

    async def main():
        references = []
        for address in ("no.such.name.invalid", ("192.0.2.1", 80)):
            await loop.create_task(look(address, references))
        await asyncio.sleep(0)
        await loop.shutdown_default_executor()
        return [reference() for reference in references]

    gc.collect()
    gc.disable()
    try:
        assert run(loop, main()) == [None, None]
    finally:
        gc.enable()


@pytest.mark.veloop_only("asyncio has no other place for them")
@pytest.mark.parametrize("has_executor", [True, False])
def test_lookups_when_all_of_libuvs_threads_are_busy(loop, monkeypatch, has_executor):
    from veloop.loop import dns

    async def main():
        if not has_executor:
            await loop.shutdown_default_executor()
        monkeypatch.setattr(dns, "_under_way", {object() for _ in range(dns._AT_ONCE)})
        assert await loop.getaddrinfo("localhost", 80) == socket.getaddrinfo("localhost", 80)
        assert await loop.getnameinfo(("127.0.0.1", 80)) == socket.getnameinfo(("127.0.0.1", 80), 0)
        assert (loop._executor.executor is not None) == has_executor
        assert len(dns._under_way) == dns._AT_ONCE
        await loop.shutdown_default_executor()

    run(loop, main())


def test_lookups_that_ended_or_were_cancelled_do_not_count_as_busy(loop):
    async def main():
        tasks = [loop.create_task(loop.getaddrinfo("localhost", 80)) for _ in range(6)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks)
        assert not any(task.cancelled() for task in tasks[1::2])  # the others may have been done
        await loop.getaddrinfo("localhost", 80)
        await loop.shutdown_default_executor()

    run(loop, main())
    if type(loop).__module__.startswith("veloop"):
        from veloop.loop import dns

        assert not dns._under_way


def test_debug_mode_logs_lookups(loop, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    loop.set_debug(True)

    async def main():
        loop.slow_callback_duration = 0
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        loop.slow_callback_duration = 60
        await loop.getaddrinfo("localhost", 80)
        await loop.shutdown_default_executor()

    run(loop, main())
    lines = [
        (record.levelno, record.getMessage().partition(" took ")[0])
        for record in caplog.records
        if "ddress info" in record.getMessage()
    ]
    kind = repr(socket.SOCK_STREAM)
    assert lines == [
        (logging.DEBUG, f"Get address info localhost:80, type={kind}"),
        (logging.INFO, f"Getting address info localhost:80, type={kind}"),
        (logging.DEBUG, "Get address info localhost:80"),
        (logging.DEBUG, "Getting address info localhost:80"),
    ]
