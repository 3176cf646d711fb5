"""Hostile bytes on every port: afterwards the process still answers and is small."""
import random
import socket
import struct
import time

import pytest

from support import api
from support.process import wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RESIDENT_MAX = 120_000_000


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) \
        + payload


def literal(name, value):
    """An HPACK literal without indexing."""
    def length(size):
        if size < 127:
            return bytes([size])
        out, size = b"\x7f", size - 127
        while size > 127:
            out += bytes([size & 127 | 128])
            size >>= 7
        return out + bytes([size])
    return b"\x00" + length(len(name)) + name + length(len(value)) + value


def request_headers(path=b"/vectron.v1.VectronService/Search", extra=b""):
    return (b"\x83\x86" + literal(b":path", path) + literal(b":authority", b"x")
            + literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc") + extra)


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=5)


def open_h2(address):
    connection = connect(address)
    connection.sendall(PREFACE + frame(4, 0, 0))
    return connection


def send_quietly(connection, data):
    """The server may hang up in the middle: that is its right."""
    try:
        connection.sendall(data)
        return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def ports(dev):
    return {"grpc": dev.grpc_address, "http": dev.http_address, "auth-grpc": dev.auth_grpc_address,
            "auth-http": dev.auth_http_address}


@pytest.fixture(scope="module")
def token(dev):
    _, token = dev.user()
    dev.grpc(token).CreateCollection(name="a", dimension=2)
    return token


@pytest.fixture(autouse=True)
def still_well(dev, token):
    yield
    assert dev.process.is_running(), dev.process.output()
    client = dev.grpc(token)
    client.Upsert(collection="a", points=[api.vectron.Point(id="x", vector=[1, 2])])
    assert client.Search(collection="a", vector=[1, 2], top_k=1).results[0].id == "x"
    assert dev.http(token).get("/v1/collections").code == 200
    wait_until(lambda: dev.process.resident_bytes() < RESIDENT_MAX, seconds=10,
               what=f"less than {RESIDENT_MAX} bytes resident ({dev.process.resident_bytes()})")


def test_random_bytes(ports):
    source = random.Random(1)
    for address in ports.values():
        for size in (1, 3, 24, 1000, 100_000):
            for start in (b"", PREFACE, PREFACE + frame(4, 0, 0), b"POST /v1/collections HTTP/1.1\r\n",
                          b"\x16\x03\x01"):
                with connect(address) as connection:
                    send_quietly(connection, start + source.randbytes(size))


def test_every_kind_of_frame_with_random_contents(ports):
    source = random.Random(2)
    for address in ports.values():
        for _ in range(50):
            with open_h2(address) as connection:
                data = b"".join(frame(source.randrange(12), source.randrange(256),
                                      source.randrange(8), source.randbytes(source.randrange(64)))
                                for _ in range(20))
                send_quietly(connection, data)


def test_a_claim_of_two_gigabytes_takes_no_memory(dev, ports, token):
    for address in (ports["grpc"], ports["auth-grpc"]):
        connections = []
        for _ in range(20):
            connection = open_h2(address)
            for stream in range(1, 100, 2):
                send_quietly(connection, frame(1, 4, stream, request_headers())
                             + frame(0, 0, stream, b"\x00" + struct.pack(">I", 0x7FFFFFFF) + b"x"))
            connections.append(connection)
        time.sleep(0.2)
        assert dev.process.resident_bytes() < RESIDENT_MAX
        for connection in connections:
            connection.close()
    head = b"POST /v1/collections HTTP/1.1\r\nhost: x\r\ncontent-length: 2147483647\r\n"
    with connect(ports["http"]) as connection:  # nobody's body is not even looked at
        send_quietly(connection, head + b"\r\n{")
        assert b" 401 " in connection.recv(4096)
    head += b"authorization: Bearer " + token.encode() + b"\r\n\r\n"
    with connect(ports["http"]) as connection:
        send_quietly(connection, head + b"{")
        assert b" 413 " in connection.recv(4096)


def test_header_floods(ports):
    for address in ports.values():
        with connect(address) as connection:
            send_quietly(connection, b"GET / HTTP/1.1\r\n" + b"x-a: " + b"y" * 1_000_000 + b"\r\n\r\n")
            answer = connection.recv(4096)
            assert b" 431 " in answer or answer == b""
        with connect(address) as connection:
            send_quietly(connection, b"GET /" + b"y" * 1_000_000 + b" HTTP/1.1\r\n\r\n")
            answer = connection.recv(4096)
            assert b" 414 " in answer or b" 431 " in answer or answer == b""
        with open_h2(address) as connection:
            many = b"".join(literal(f"x-{i}".encode(), b"v" * 100) for i in range(1000))
            send_quietly(connection, frame(1, 0, 1, request_headers()))
            for start in range(0, len(many), 16000):
                send_quietly(connection, frame(9, 0, 1, many[start:start + 16000]))
        with open_h2(address) as connection:  # CONTINUATION without end
            send_quietly(connection, frame(1, 0, 1, request_headers()))
            for _ in range(20_000):
                if not send_quietly(connection, frame(9, 0, 1, literal(b"x", b"y"))):
                    break


def test_reset_flood(dev, ports):
    for address in (ports["grpc"], ports["http"]):
        before = dev.process.cpu_seconds()
        with open_h2(address) as connection:
            headers = request_headers()
            for start in range(1, 40_000, 200):
                data = b"".join(frame(1, 4, stream, headers)
                                + frame(3, 0, stream, struct.pack(">I", 8))
                                for stream in range(start, start + 200, 2))
                if not send_quietly(connection, data):
                    break
        assert dev.process.cpu_seconds() - before < 3


def test_floods_of_pings_settings_and_windows(ports):
    for payload in (frame(6, 0, 0, b"12345678"), frame(4, 0, 0), frame(8, 0, 0, b"\0\0\0\1"),
                    frame(2, 0, 1, b"\0\0\0\0\1")):
        with open_h2(ports["grpc"]) as connection:
            for _ in range(100):
                if not send_quietly(connection, payload * 1000):
                    break


def test_slow_senders_do_not_hold_the_port(dev, ports, token):
    slow = []
    for i in range(200):
        connection = connect(ports["http" if i % 2 else "grpc"])
        connection.sendall(b"G" if i % 2 else PREFACE[:10])
        slow.append(connection)
    started = time.monotonic()
    assert dev.http(token).get("/v1/collections").code == 200
    assert time.monotonic() - started < 2
    for connection in slow:
        connection.close()


def test_a_reader_that_never_reads(dev, ports, token):
    """Answers wait in the server only up to a bound; pipelined requests wait in the socket."""
    request = (b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
    connection = connect(ports["http"])
    connection.settimeout(1)
    try:
        for _ in range(1000):
            connection.sendall(request * 100)
    except (TimeoutError, socket.timeout, OSError):
        pass
    assert dev.process.resident_bytes() < RESIDENT_MAX
    connection.close()
    assert token


def test_smuggling_is_refused(ports):
    for head in (b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
                 b"content-length: 5\r\ncontent-length: 6\r\n", b"transfer-encoding: xchunked\r\n",
                 b"content-length: -1\r\n", b"content-length: 1e3\r\n"):
        with connect(ports["http"]) as connection:
            connection.sendall(b"POST /v1/collections HTTP/1.1\r\nhost: x\r\n" + head
                               + b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
            answer = connection.recv(65536)
            assert b" 400 " in answer.split(b"\r\n")[0] and answer.count(b"HTTP/1.1") == 1


def test_a_zip_bomb_stops_at_the_limit(dev, ports):
    import gzip
    bomb = gzip.compress(b"\0" * 400_000_000, 9)
    with open_h2(ports["grpc"]) as connection:
        head = request_headers(extra=literal(b"grpc-encoding", b"gzip"))
        message = b"\x01" + struct.pack(">I", len(bomb)) + bomb
        send_quietly(connection, frame(1, 4, 1, head))
        for start in range(0, len(message), 16000):
            if not send_quietly(connection, frame(0, 0, 1, message[start:start + 16000])):
                break
        time.sleep(0.5)


def test_nested_messages_do_not_exhaust_the_stack(dev, token):
    """A Struct within a Struct, 100,000 deep, by hand."""
    inner = b""
    for _ in range(100_000):
        # Value.struct_value { fields { key: "", value: … } }: lengths grow, so build bounded.
        body = b"\x12" + varint(len(inner)) + inner
        struct_value = b"\x0a" + varint(len(body)) + body
        inner = b"\x2a" + varint(len(struct_value)) + struct_value
        if len(inner) > 500_000:
            break
    import grpc
    point = (b"\x0a\x01d\x12\x08\0\0\x80?\0\0\x80?\x22" + varint(len(struct_value))
             + struct_value)
    request = b"\x0a\x01a\x12" + varint(len(point)) + point
    channel = dev.grpc(token)
    call = channel.channel.unary_unary("/vectron.v1.VectronService/Upsert")
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=channel.metadata, timeout=20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_more_connections_than_descriptors(tmp_path_factory):
    """At the limit of open files the port waits; it serves again when some are closed."""
    import resource
    from support.cluster import Dev
    folder = tmp_path_factory.mktemp("few")
    dev = Dev(folder)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160) if limit[1] < 0 else (160, limit[1]))
    try:
        # The hard limit counts: the server raises its soft one.
        dev.process.command = ["/bin/sh", "-c", 'ulimit -n 160; exec "$0" "$@"',
                               *dev.process.command]
        dev.process.start()
        line = dev.process.wait_line("vectron ready")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    address = dict(word.split("=") for word in line.split()[2:])["http"]
    connections = []
    for _ in range(300):
        try:
            connections.append(connect(address))
        except OSError:
            break
    before = dev.process.cpu_seconds()
    time.sleep(1)
    assert dev.process.cpu_seconds() - before < 0.3
    for connection in connections:
        connection.close()
    assert wait_until(lambda: api.Http(address).get("/healthz", timeout=5).code == 200, seconds=10)
    dev.process.stop()
