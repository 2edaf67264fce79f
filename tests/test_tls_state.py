"""Session: TLS without I/O. Two of them are wired by hand here; no loop runs."""

import random
import ssl

import pytest

from certificates import client_context, server_context
from tcp_helpers import pattern
from veloop.loop.tls_state import CHUNK, RECORD, Session


def carry(source, target):
    """Everything that is to be sent, to the other side; how many pieces it was."""
    pieces = 0
    while data := source.send():
        target.incoming.write(data)
        pieces += 1
    return pieces


def pair(version=None):
    """(client, server), the handshake done and nothing on the way."""
    context = server_context()
    if version is not None:
        context.maximum_version = version
    client = Session(client_context(), False, "localhost")
    server = Session(context, True, None)
    done = [False, False]
    while not all(done):
        for i, (session, other) in enumerate([(client, server), (server, client)]):
            done[i] = done[i] or session.handshake()
            carry(session, other)
    client.read(), server.read()  # session tickets
    return client, server


def test_handshake_tells_when_it_is_complete():
    client, server = pair()
    assert client.sslobj.getpeercert()["subjectAltName"]
    assert server.sslobj.cipher() == client.sslobj.cipher()


def test_bytes_before_the_peers_are_there_are_no_handshake():
    client = Session(client_context(), False, "localhost")
    assert client.handshake() is False
    assert client.unsent() > 0


@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3])
def test_what_was_written_is_read(size):
    client, server = pair()
    client.write(pattern(size))
    assert client.unsent() == client.queued == size
    carry(client, server)
    assert client.unsent() == 0
    assert server.read() == pattern(size)
    assert server.read() == b""
    assert not server.ended


def test_small_writes_share_a_record():
    client, server = pair()
    for i in range(100):
        client.write(b"%02d" % i)
    assert carry(client, server) == 1
    assert server.sslobj.read(RECORD) == b"".join(b"%02d" % i for i in range(100))


def test_big_writes_are_encrypted_piece_by_piece():
    client, _ = pair()
    client.write(pattern(4 * CHUNK))
    assert CHUNK < len(client.send()) < CHUNK + 1000
    assert client.queued == 3 * CHUNK


@pytest.mark.parametrize("seed", range(5))
def test_writes_of_all_sizes_keep_their_order(seed):
    choose = random.Random(seed)
    client, server = pair()
    sent, received = bytearray(), bytearray()
    for _ in range(200):
        data = pattern(choose.choice([1, 10, 1000, RECORD, 50_000, 2 * CHUNK]))
        sent += data
        client.write(data)
        if choose.random() < 0.5:
            server.incoming.write(client.send())
        received += server.read()
    carry(client, server)
    while data := server.read():
        received += data
    assert received == sent


def test_a_record_in_pieces_is_read_when_it_is_complete():
    client, server = pair()
    client.write(b"hello")
    for byte in client.send():
        assert server.read() == b""
        server.incoming.write(bytes([byte]))
    assert server.read() == b"hello"


@pytest.mark.parametrize("room", [1, 7, 1000, RECORD, 3 * RECORD])
def test_reading_into_a_buffer(room):
    client, server = pair()
    data = pattern(2 * RECORD + 100)
    client.write(data)
    carry(client, server)
    buffer = bytearray(room)
    received = b""
    while size := server.read_into(memoryview(buffer)):
        received += buffer[:size]
    assert received == data
    assert not server.more()


def test_the_end_is_told_once_all_is_read():
    client, server = pair()
    client.write(b"last")
    carry(client, server)
    assert client.shutdown() is False
    carry(client, server)
    assert server.read() == b"last"
    assert server.read() == b""
    assert server.ended
    assert server.shutdown() is True
    carry(server, client)
    assert client.shutdown() is True


def test_the_end_into_a_buffer():
    client, server = pair()
    client.write(b"last")
    carry(client, server)
    client.shutdown()
    carry(client, server)
    buffer = bytearray(100)
    assert server.read_into(memoryview(buffer)) == 4
    assert server.read_into(memoryview(buffer)) == 0
    assert server.ended


@pytest.mark.parametrize("into", [False, True])
def test_an_error_comes_after_what_was_before_it(into):
    client, server = pair()
    client.write(b"good")
    carry(client, server)
    client.write(b"bad")
    record = bytearray(client.send())
    record[-1] ^= 1
    server.incoming.write(record)

    def read():
        if not into:
            return server.read()
        buffer = bytearray(100)
        return bytes(buffer[: server.read_into(memoryview(buffer))])

    assert read() == b"good"
    assert isinstance(server.failure, ssl.SSLError)
    with pytest.raises(ssl.SSLError):
        read()
    assert server.outgoing.pending  # the alert


def test_data_after_goodbye_is_an_error():
    client, server = pair()
    client.shutdown()
    server.write(b"more")
    carry(server, client)
    with pytest.raises(ssl.SSLError, match="APPLICATION_DATA_AFTER_CLOSE_NOTIFY"):
        client.shutdown()


def test_what_was_discarded_is_no_error_after_goodbye():
    client, server = pair()
    server.write(pattern(3 * RECORD))
    carry(server, client)
    client.discard()
    assert client.shutdown() is False
    carry(client, server)
    server.read()
    server.shutdown()
    carry(server, client)
    assert client.shutdown() is True


def test_dropped_means_forgotten():
    client, server = pair()
    client.write(pattern(2 * CHUNK))
    client.send()
    server.write(b"x")
    carry(server, client)
    client.drop()
    assert client.unsent() == 0
    assert client.incoming.pending == 0
    assert client.send() == b""
