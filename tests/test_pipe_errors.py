"""pipe.py: what is refused, what fails, what the application does behind the transport's back."""

import asyncio
import errno
import gc
import os
import socket
import subprocess
import warnings

import pytest

from certificates import client_context
from children import run_script, script_command, script_env
from helpers import PATIENCE, PYPY, WINDOWS, Pipe, RecordingProtocol, in_thread, open_fds
from pipe_helpers import both_ends, reading, writing
from tcp_helpers import pattern, run, turns
from tls_helpers import NAME

pytestmark = pytest.mark.skipif(WINDOWS, reason="pipes and other files of POSIX")

CONNECT = ("connect_read_pipe", "connect_write_pipe")
MUCH = 1 << 20


def open_end(method, ends):
    """The file for that method, of (reading, writing) descriptors; the other is closed."""
    mode, mine, other = ("rb", *ends) if method == "connect_read_pipe" else ("wb", *ends[::-1])
    os.close(other)
    return open(mine, mode, 0)


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize("method", CONNECT)
def test_regular_file_is_refused_and_left_open(loop, method, tmp_path):
    with open(tmp_path / "file", "wb+") as file:
        with pytest.raises(ValueError, match="Pipe transport is"):
            run(loop, getattr(loop, method)(asyncio.Protocol, file))
        assert not file.closed
        assert os.get_blocking(file.fileno())


@pytest.mark.parametrize("method", CONNECT)
@pytest.mark.veloop_only("asyncio's half-made transport complains when it is collected")
def test_closed_file_is_refused(loop, method, tmp_path):
    file = open_end(method, os.pipe())
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        run(loop, getattr(loop, method)(asyncio.Protocol, file))


@pytest.mark.parametrize("method", CONNECT)
@pytest.mark.veloop_only("asyncio's half-made transport complains when it is collected")
def test_number_is_not_a_file_object(loop, method):
    with pytest.raises(AttributeError, match="fileno"):
        run(loop, getattr(loop, method)(asyncio.Protocol, 0))


@pytest.mark.parametrize("method", CONNECT)
def test_factory_that_raises_leaves_the_file_alone(loop, method):
    with open_end(method, os.pipe()) as file:
        with pytest.raises(ZeroDivisionError):
            run(loop, getattr(loop, method)(lambda: 1 / 0, file))
        assert not file.closed


@pytest.mark.parametrize("method", CONNECT)
@pytest.mark.veloop_only("asyncio finds out in a callback")
def test_factory_must_return_a_protocol(loop, method):
    with open_end(method, os.pipe()) as file:
        with pytest.raises(TypeError, match="protocol"):
            run(loop, getattr(loop, method)(lambda: None, file))
        with pytest.raises(TypeError, match="protocol_factory must be callable, not None"):
            run(loop, getattr(loop, method)(None, file))
        assert not file.closed


@pytest.mark.parametrize("method", CONNECT)
def test_out_of_descriptors(loop, method):
    """Where asyncio needs none there is one; where we do there is an error and no leak."""
    import resource

    run(loop, turns())
    with open_end(method, os.pipe()) as file:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = open_fds()
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1, limits[1]))
        fillers = []
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                while True:
                    fillers.append(os.dup(0))
            try:
                transport, _ = run(loop, getattr(loop, method)(asyncio.Protocol, file))
            except OSError as exc:
                assert exc.errno == errno.EMFILE
                assert not file.closed
            else:
                transport.close()
                run(loop, turns())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in fillers:
                os.close(fd)


@pytest.mark.parametrize("method", CONNECT)
@pytest.mark.veloop_only("asyncio's transport is made, and complains when it is collected")
def test_closed_loop_refuses(new_loop, method):
    loop, other = new_loop(), new_loop()
    loop.close()
    with open_end(method, os.pipe()) as file, pytest.raises(RuntimeError, match="closed"):
        run(other, getattr(loop, method)(asyncio.Protocol, file))


# ------------------------------------------------------------ transports show one direction


def test_reader_does_not_write(loop, tmp_path):
    async def main():
        async with reading(loop, "socket", tmp_path) as (transport, _, _peer):
            for method, *args in (("write", b"x"), ("writelines", [b"x"]), ("write_eof",)):
                with pytest.raises((NotImplementedError, AttributeError)):
                    getattr(transport, method)(*args)

    run(loop, main())


def test_writer_does_not_read(loop, tmp_path):
    async def main():
        async with writing(loop, "socket", tmp_path) as (transport, protocol, peer):
            for method in ("pause_reading", "resume_reading", "is_reading"):
                with pytest.raises(NotImplementedError):
                    getattr(transport, method)()

    run(loop, main())


@pytest.mark.parametrize("ends", [reading, writing])
def test_neither_sendfile_nor_start_tls(loop, ends, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def main():
        async with ends(loop, "pipe", tmp_path) as (transport, protocol, peer):
            with path.open("rb") as file:
                with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
                    await loop.sendfile(transport, file)
            with pytest.raises(TypeError, match=r"is not supported by start_tls\(\)"):
                await loop.start_tls(transport, protocol, client_context(), server_hostname=NAME)
            assert not transport.is_closing()
            assert transport.get_protocol() is protocol
            if ends is writing:
                transport.write(b"as before")
                assert peer.read(100) == b"as before"
            else:
                peer.write(b"as before")
                assert await protocol.received(9) == b"as before"

    run(loop, main())


@pytest.mark.parametrize("data", ["text", None, 5], ids=str)
def test_only_bytes_can_be_written(loop, data, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, _, _peer):
            with pytest.raises((TypeError, AssertionError)):
                transport.write(data)

    run(loop, main())


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_extra_info_is_the_file(loop, kind, tmp_path):
    async def main():
        mine, other = both_ends(kind, tmp_path)
        file = open(mine, "rb", 0)
        transport, _ = await loop.connect_read_pipe(asyncio.Protocol, file)
        assert transport.get_extra_info("pipe") is file
        assert transport.get_extra_info("socket", "none") == "none"
        assert transport.get_extra_info("peername") is None
        assert not os.get_blocking(mine)
        transport.close()
        await turns()
        assert transport.get_extra_info("pipe") is file
        os.close(other)

    run(loop, main())


@pytest.mark.veloop_only("asyncio's classes have other names")
def test_repr_tells_the_state(loop, tmp_path):
    async def main():
        async with reading(loop, "pipe", tmp_path) as (transport, _, _peer):
            fd = transport.get_extra_info("pipe").fileno()
            assert repr(transport) == f"<ReadPipeTransport fd={fd} polling>"
            transport.pause_reading()
            assert repr(transport) == f"<ReadPipeTransport fd={fd} idle>"
            transport.close()
            assert repr(transport) == f"<ReadPipeTransport closing fd={fd} idle>"
            await turns()
            assert repr(transport) == "<ReadPipeTransport closed>"
        async with writing(loop, "pipe", tmp_path) as (transport, _, _peer):
            fd = transport.get_extra_info("pipe").fileno()
            assert repr(transport) == f"<WritePipeTransport fd={fd} idle bufsize=0>"
            transport.write(pattern(MUCH))
            size = transport.get_write_buffer_size()
            assert repr(transport) == f"<WritePipeTransport fd={fd} polling bufsize={size}>"

    run(loop, main())


# ------------------------------------------------------------ devices


def test_writing_to_the_null_device(loop):
    async def main():
        file = open(os.devnull, "wb", 0)
        protocol = RecordingProtocol(loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, file)
        transport.write(pattern(MUCH))
        assert transport.get_write_buffer_size() == 0
        transport.close()
        assert await protocol.lost is None

    run(loop, main())


@pytest.mark.veloop_only("asyncio's selectors refuse the device, in a callback")
def test_reading_from_the_null_device(loop):
    async def main():
        protocol = RecordingProtocol(loop)
        await loop.connect_read_pipe(lambda: protocol, open(os.devnull, "rb", 0))
        assert await protocol.lost is None
        assert protocol.names == ["connection_made", "eof", "connection_lost"]

    run(loop, main())


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no /dev/zero")
@pytest.mark.veloop_only("asyncio's selectors refuse the device, in a callback")
def test_device_without_end_can_be_paused_and_closed(loop):
    async def main():
        protocol = RecordingProtocol(loop)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, open("/dev/zero", "rb", 0))
        await protocol.received(1 << 18)
        transport.pause_reading()
        transport.resume_reading()
        transport.pause_reading()
        size = len(protocol.data)
        await turns(5)
        assert len(protocol.data) == size
        transport.resume_reading()
        await protocol.received(size + 1)
        assert not any(protocol.data)
        transport.close()
        assert await protocol.lost is None

    run(loop, main())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_error_of_a_write_is_told(loop):
    async def main():
        protocol = RecordingProtocol(loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, open("/dev/full", "wb", 0))
        transport.write(b"x")
        assert transport.is_closing()
        assert (await protocol.lost).errno == errno.ENOSPC

    run(loop, main())


def test_pty_keeps_nothing_back(loop, tmp_path):
    """More than the kernel gives at once, all written before the other side closes."""

    async def main():
        async with reading(loop, "pty", tmp_path) as (transport, protocol, peer):
            transport.pause_reading()
            os.set_blocking(peer.fileno(), False)
            sent = 0
            while size := peer.write(b"z" * 1000):
                sent += size
            peer.close()
            transport.resume_reading()
            assert (await protocol.lost).errno == errno.EIO
            assert len(protocol.data) == sent

    run(loop, main())


# ------------------------------------------------------------ the wrong end


@pytest.mark.veloop_only("asyncio does not notice as long as the other end is open")
def test_reading_from_a_file_that_is_not_open_for_it(loop, loop_errors):
    async def main():
        with Pipe() as pipe:
            protocol = RecordingProtocol(loop)
            file = open(os.dup(pipe.writing), "wb", 0)
            await loop.connect_read_pipe(lambda: protocol, file)
            assert isinstance(await protocol.lost, OSError)

    run(loop, main())
    assert loop_errors.take_one()["message"] == "Fatal read error on pipe transport"


def test_writing_to_a_file_that_is_not_open_for_it(loop):
    async def main():
        with Pipe() as pipe:
            protocol = RecordingProtocol(loop)
            transport, _ = await loop.connect_write_pipe(
                lambda: protocol, open(os.dup(pipe.reading), "rb", 0)
            )
            transport.write(b"x")
            assert isinstance(await protocol.lost, OSError)

    run(loop, main())


# ------------------------------------------------------------ behind the transport's back


@pytest.mark.veloop_only("asyncio reads whatever has the number now")
def test_file_closed_by_the_application(loop, tmp_path):
    """Its number may be somebody else's: that must be neither read nor written nor closed."""

    async def main():
        async with reading(loop, "pipe", tmp_path) as (transport, protocol, peer):
            file = transport.get_extra_info("pipe")
            number = file.fileno()
            file.close()
            with Pipe() as other:
                assert number in (other.reading, other.writing)
                os.write(other.writing, b"not yours")
                peer.write(b"yours")
                assert await protocol.received(5) == b"yours"
                transport.close()
                await protocol.lost
                await turns()
                assert os.read(other.reading, 100) == b"not yours"

    run(loop, main())


@pytest.mark.parametrize("method", CONNECT)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_loop_closed_with_an_open_pipe(new_loop, method):
    loop = new_loop()
    with Pipe() as pipe:
        fd, mode = (pipe.reading, "rb") if method == "connect_read_pipe" else (pipe.writing, "wb")
        file = open(os.dup(fd), mode, 0)
        transport, _ = run(loop, getattr(loop, method)(asyncio.Protocol, file))
        if method == "connect_write_pipe":
            transport.write(pattern(MUCH))
        loop.close()
        repr(transport)
        del transport, _
        gc.collect()
        gc.collect()
        assert file.closed


@pytest.mark.skipif(PYPY, reason="when objects are collected there is not for a test to say")
@pytest.mark.parametrize("method", CONNECT)
def test_unclosed_transport_warns(new_loop, method):
    loop = new_loop()
    with Pipe() as pipe:
        fd, mode = (pipe.reading, "rb") if method == "connect_read_pipe" else (pipe.writing, "wb")
        file = open(os.dup(fd), mode, 0)
        run(loop, getattr(loop, method)(asyncio.Protocol, file))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.close()
            gc.collect()
        assert file.closed
        assert any("unclosed transport" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("method", CONNECT)
def test_cancelled_connect_closes_the_file(loop, method):
    async def main():
        file = open_end(method, os.pipe())
        task = asyncio.ensure_future(getattr(loop, method)(asyncio.Protocol, file))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns()
        assert file.closed

    run(loop, main())


@pytest.mark.veloop_only("asyncio has no such guard")
def test_other_threads_are_refused(loop, tmp_path):
    async def main():
        async with writing(loop, "pipe", tmp_path) as (transport, _, _peer):
            with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
                in_thread(lambda: transport.write(b"x"))
            assert not transport.is_closing()

    run(loop, main())


@pytest.mark.veloop_only("asyncio's remove_reader() takes the transport's own watch away")
def test_files_own_number_stays_the_applications(loop, tmp_path):
    async def main():
        async with reading(loop, "socket", tmp_path) as (transport, protocol, peer):
            fd = transport.get_extra_info("pipe").fileno()
            assert not loop.remove_reader(fd)
            assert not loop.remove_writer(fd)
            writable = asyncio.Event()
            loop.add_writer(fd, writable.set)
            await writable.wait()
            assert loop.remove_writer(fd)
            peer.write(b"data")
            await protocol.received(4)

    run(loop, main())


@pytest.mark.veloop_only("asyncio's selectors do without a second descriptor")
def test_watch_of_a_number_that_came_back(loop, tmp_path):
    """A poisoned descriptor: the application closed what it watched; we get the number."""

    async def main():
        async with writing(loop, "pipe", tmp_path):
            pass  # what the loop opens once is open
        reading_fd, writing_fd = both_ends("pipe", tmp_path)
        watched = [os.dup(reading_fd) for _ in range(4)]
        for fd in watched:
            loop.add_reader(fd, lambda: None)
            os.close(fd)
        protocol = RecordingProtocol(loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, open(writing_fd, "wb", 0))
        for fd in watched:
            loop.remove_reader(fd)
        transport.write(b"x")
        assert os.read(reading_fd, 10) == b"x"
        os.close(reading_fd)
        assert await protocol.lost is None

    run(loop, main())


# ------------------------------------------------------------ standard streams


def test_standard_streams(loop_kind):
    """As a filter in a shell pipeline has them."""
    source = """
    async def main():
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, sys.stdout)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await asyncio.sleep(0.01)
    run(main())
    """
    done = subprocess.run(
        script_command(loop_kind, source),
        env=script_env(loop_kind),
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ONE\nTWO\n", "")


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)], ids=str)
def test_numbers_of_closed_standard_streams(loop_kind, closed):
    """libuv aborts when it is to close one of these."""
    source = f"""
    for fd in {closed}:
        os.close(fd)
    reading, writing = os.pipe()
    assert reading in {closed}
    async def main():
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), open(reading, "rb", 0))
        writer, _ = await loop.connect_write_pipe(asyncio.Protocol, open(writing, "wb", 0))
        writer.write(b"x")
        writer.close()
        assert await reader.read() == b"x"
        await asyncio.sleep(0)
    run(main())
    os._exit(7)
    """
    done = run_script(loop_kind, source, check=False)
    assert done.returncode == 7, (done.returncode, done.stderr)


def test_fork_leaves_the_parents_pipes_alone(loop_kind):
    """The child has copies of everything, and closes the loop."""
    source = """
    def fork():
        pid = os.fork()
        if pid == 0:
            loop.close()
            os._exit(0)
        os.waitpid(pid, 0)

    async def connect():
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), open(mine, "rb", 0))
        class Writer(asyncio.Protocol):
            lost = loop.create_future()
            def connection_lost(self, exc):
                self.lost.set_result(exc)
        await loop.connect_write_pipe(Writer, open(writer, "wb", 0))
        return reader, Writer.lost

    async def use(reader, lost):
        os.write(other, b"data")
        print(await reader.readexactly(4))
        os.close(other)
        print(await reader.read())
        os.close(read_end)
        print(await lost)

    mine, other = os.pipe()
    read_end, writer = os.pipe()
    loop = new_event_loop()
    both = loop.run_until_complete(connect())
    fork()
    loop.run_until_complete(asyncio.wait_for(use(*both), 10))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    """
    out = run_script(loop_kind, source, "-W", "ignore::DeprecationWarning").stdout
    assert out.splitlines() == ["b'data'", "b''", "None"]


def test_socket_peer_that_resets(loop, loop_errors):
    """An error other than a terminal's end is reported, for a reader."""

    async def main():
        left, right = socket.socketpair()
        protocol = RecordingProtocol(loop)
        await loop.connect_read_pipe(lambda: protocol, open(left.detach(), "rb", 0))
        os.write(protocol.transport.get_extra_info("pipe").fileno(), b"never read")
        right.close()
        assert isinstance(await protocol.lost, ConnectionResetError)

    run(loop, main())
    assert loop_errors.take_one()["message"] == "Fatal read error on pipe transport"
