"""_main/demo.py: python -m veloop --demo measures, and fails on any lost, surplus or wrong byte."""

import contextlib
import re
import socket
import subprocess
import sys

import pytest

from children import script_env
from helpers import PATIENCE, drain, new_event_loop, refusing_address, threaded_server

ROW = r"(veloop|asyncio) +([\d,]+) +(?:[\d.]+ us|too short to tell)"


@pytest.fixture(scope="module", autouse=True)
def _warm_up():
    """What a process opens once, with its first loop, must not be taken for a leak."""
    new_event_loop("veloop").close()


@pytest.fixture
def demo(monkeypatch):
    """The module, with shorter rounds."""
    from veloop._main import demo

    monkeypatch.setattr(demo, "ROUNDS", 1)
    monkeypatch.setattr(demo, "SECONDS", 0.05)
    monkeypatch.setattr(demo, "WARM_UP", 0.01)
    monkeypatch.setattr(demo, "CONNECTIONS", 3)
    # The servers are to find the package that the tests found.
    for name, value in script_env("veloop").items():
        monkeypatch.setenv(name, value)
    return demo


@pytest.fixture
def client(demo):
    client = demo.Client()
    yield client
    client.close()


def rates(text):
    """loop -> messages per second, from the table."""
    return {name: int(rate.replace(",", "")) for name, rate in re.findall(ROW, text)}


# ------------------------------------------------------------ as a whole


@pytest.mark.slow
def test_demo():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "veloop", "--demo"],
        env=script_env("veloop"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("veloop ")
    found = rates(done.stdout)
    assert list(found) == ["veloop", "asyncio"]
    assert min(found.values()) > 0
    table = done.stdout.rstrip().splitlines()[-3:]
    assert len({len(line) for line in table}) == 1, "columns are not aligned"


@pytest.mark.slow
def test_compare_prints_a_table(demo, capsys):
    assert demo.main() == 0
    output = capsys.readouterr()
    assert list(rates(output.out)) == ["veloop", "asyncio"]
    assert output.err == ""


# ------------------------------------------------------------ the client


def test_client_counts_what_it_exchanged(demo, client, monkeypatch):
    monkeypatch.setattr(demo, "CONNECTIONS", 1)
    received = []

    def handler(connection):
        while data := connection.recv(1 << 16):
            received.append(data)
            connection.sendall(data)

    with threaded_server(handler) as (_, port):
        client.connect(port)
        count, seconds = client.run(0.02)
        client.finish()
    assert count > 0
    assert seconds >= 0.02
    assert len(b"".join(received)) == count * demo.SIZE


def test_echo_in_pieces_is_put_together(demo, client, monkeypatch):
    monkeypatch.setattr(demo, "CONNECTIONS", 1)

    def handler(connection):
        while data := connection.recv(100):
            connection.sendall(data)

    with threaded_server(handler) as (_, port):
        client.connect(port)
        assert client.run(0)[0] == 1
        client.finish()


def wrong(message):
    return message[:-1] + bytes([message[-1] ^ 1])


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (wrong, "differs from what was sent"),
        (lambda message: message[:-1], "ended 1 bytes early"),
        (lambda message: b"", "ended 1024 bytes early"),
        (lambda message: message + b"x", "more bytes came back"),
    ],
    ids=["wrong", "one lost", "all lost", "one too many"],
)
def test_wrong_echo_is_an_error(demo, client, monkeypatch, answer, problem):
    monkeypatch.setattr(demo, "CONNECTIONS", 1)

    def handler(connection):
        connection.sendall(answer(drain(connection, demo.SIZE)))

    with threaded_server(handler) as (_, port):
        client.connect(port)
        with pytest.raises(demo.DemoError, match=problem):
            client.run(0)
            client.finish()


# ------------------------------------------------------------ failures


def use_server(monkeypatch, demo, source):
    """Have the demo start another program in place of its servers."""
    popen = subprocess.Popen

    def start(command, **kwargs):
        return popen([sys.executable, "-c", source], **kwargs)

    monkeypatch.setattr(demo.subprocess, "Popen", start)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", "the veloop server has ended"),
        ("print('no port')", "the veloop server has printed 'no port"),
        ("import time; time.sleep(60)", "the veloop server has ended"),
    ],
    ids=["ends at once", "says nonsense", "hangs"],
)
def test_server_that_does_not_serve(demo, monkeypatch, capsys, source, problem):
    monkeypatch.setattr(demo, "PATIENCE", 1.0)
    use_server(monkeypatch, demo, source)
    assert demo.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m veloop --demo: error: ")
    assert problem in error


@pytest.mark.slow
def test_server_that_fails_at_the_end(demo, monkeypatch):
    use_server(monkeypatch, demo, "import sys; print(1); sys.stdin.read(); sys.exit(3)")
    with (
        pytest.raises(demo.DemoError, match="the veloop server ended with status 3"),
        demo.Server("veloop") as server,
    ):
        assert server.port() == 1


def test_no_server_to_connect_to(client):
    with refusing_address() as (_, port), pytest.raises(ConnectionRefusedError):
        client.connect(port)


# ------------------------------------------------------------ the server


@pytest.mark.parametrize("name", ["veloop", "asyncio"])
@pytest.mark.slow
def test_server_tells_port_and_cpu_time(demo, name):
    with demo.Server(name) as server:
        port = server.port()
        first = server.cpu_time()
        rate, cost = demo.measure(server, port)
        assert server.cpu_time() >= first >= 0
    assert rate > 0
    assert cost >= 0
    assert server.process.returncode == 0


@pytest.mark.slow
def test_server_reports_errors_by_its_status(demo, monkeypatch, capfd):
    source = """
import sys
from veloop._main import demo

class Broken(demo.Echo):
    def data_received(self, data):
        raise LookupError("broken")

demo.Echo = Broken
sys.exit(demo.serve("veloop"))
"""
    use_server(monkeypatch, demo, source)

    def talk():
        with demo.Server("veloop") as server:
            address = ("127.0.0.1", server.port())
            with socket.create_connection(address, PATIENCE) as sock:
                sock.sendall(b"x")
                with contextlib.suppress(ConnectionError):
                    assert sock.recv(1) == b""

    with pytest.raises(demo.DemoError, match="ended with status 1"):
        talk()
    assert "LookupError: broken" in capfd.readouterr().err
