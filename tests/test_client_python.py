"""The Python client, synchronous and asyncio, against the real server; the examples of its document."""
import asyncio
import inspect
import re
import socket
import subprocess
import sys
import time

import grpc
import numpy
import pytest

from support.cluster import Dev
from support.process import ROOT, free_port, wait_until

sys.path.insert(0, str(ROOT / "clientlibs/python"))

import vectron_client as vc  # noqa: E402 # needs the path above
from vectron_client import _wire  # noqa: E402


class Blocking:
    """An AsyncVectronClient whose methods wait, so that both clients pass the same tests."""

    def __init__(self, *arguments):
        self.loop = asyncio.new_event_loop()
        self.client = self.loop.run_until_complete(self.make(*arguments))

    async def make(self, *arguments):
        return vc.AsyncVectronClient(*arguments)

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*arguments, **named):
            async def run():
                answer = method(*arguments, **named)
                if inspect.isasyncgen(answer):
                    return [item async for item in answer]
                return await answer
            return self.loop.run_until_complete(run())
        return call


@pytest.fixture(params=[vc.VectronClient, Blocking], ids=["sync", "asyncio"])
def kind(request):
    return request.param


@pytest.fixture
def client(kind, dev):
    _, token = dev.user()
    client = kind(dev.grpc_address, token)
    yield client
    client.close()


def test_a_program_from_beginning_to_end(client):
    client.create_collection("words", 4)
    client.create_collection("apples", 4, distance="dot")
    assert client.list_collections() == ["apples", "words"]
    with pytest.raises(vc.AlreadyExistsError, match="already exists"):
        client.create_collection("words", 4)
    status = client.get_collection_status("words")
    assert (status.name, status.dimension, status.distance) == ("words", 4, "cosine")
    assert len(status.shards) == 1

    payload = {"text": "ä", "n": 3, "x": 0.5, "yes": True, "no": None, "list": [1, {"a": "b"}]}
    vector = numpy.array([0.1, -2, 3e-20, 7], dtype="f4")
    assert client.upsert("words", [vc.Point("a", vector, payload), vc.Point("b", [1, 2, 3, 4]),
                                   vc.Point("c", (4, 3, 2, 1))]) == 3
    assert client.upsert("words", []) == 0
    point = client.get("words", "a")
    assert point.vector.tobytes() == vector.tobytes()
    assert point.payload == payload
    hits = client.search("words", [1, 2, 3, 4], top_k=2, include_vectors=True)
    assert [hit.id for hit in hits] == ["b", "c"] and hits[0].score == 0
    assert list(hits[0].vector) == [1, 2, 3, 4] and list(hits[1].vector) == [4, 3, 2, 1]
    assert client.search("words", vector, top_k=1)[0].payload == payload
    assert client.search("words", vector, top_k=1, include_payload=False)[0].payload == {}
    assert client.search("words", vector, top_k=1)[0].vector is None
    assert client.search("words", vector, exact=True, ef=9, top_k=3)[0].id == "a"

    client.delete("words", "b")
    client.delete("words", "b")
    with pytest.raises(vc.NotFoundError, match="not found"):
        client.get("words", "b")
    assert client.submit_feedback("words", [vc.FeedbackItem("a", 5, True, 1)], query="x") != ""
    client.delete_collection("words")
    with pytest.raises(vc.NotFoundError):
        client.search("words", vector)


def test_many_points_and_hits(client):
    client.create_collection("many", 8, "euclidean")
    vectors = numpy.random.default_rng(1).standard_normal((3000, 8))
    heard = []
    points = vc.points_from_arrays((f"p{i}" for i in range(3000)), vectors)
    assert client.upsert_batch("many", points, batch_size=256, concurrency=4,
                               progress=heard.append) == 3000
    assert heard == sorted(heard) and heard[-1] == 3000 and len(heard) > 3
    found = list(client.search_stream("many", vectors[5], top_k=2500))
    assert len({hit.id for hit in found}) == 2500 and found[0].id == "p5"
    assert [hit.score for hit in found] == sorted(hit.score for hit in found)


def test_a_batch_that_fails_says_what_is_stored(client):
    client.create_collection("part", 2)
    points = [vc.Point(f"p{i}", [1, i]) for i in range(1000)]
    points[700] = vc.Point("bad", [1, 2, 3])
    with pytest.raises(vc.BatchError, match="dimension") as failed:
        client.upsert_batch("part", points, batch_size=100)
    assert failed.value.stored == 700
    assert isinstance(failed.value.__cause__, vc.InvalidArgumentError)
    assert client.get("part", "p699").id == "p699"
    with pytest.raises(vc.NotFoundError):
        client.get("part", "p701")


def test_errors_have_their_types(kind, dev):
    login, token = dev.user()
    with pytest.raises(vc.AuthenticationError, match="SDK token"):
        kind(dev.grpc_address, login).list_collections()
    with pytest.raises(vc.AuthenticationError):
        kind(dev.grpc_address, "nonsense").list_collections()
    client = kind(dev.grpc_address, token)
    with pytest.raises(vc.InvalidArgumentError, match="dimension"):
        client.create_collection("x", 0)
    with pytest.raises(ValueError):
        client.upsert("x", [vc.Point("a", [[1, 2], [3, 4]])])
    with pytest.raises(TypeError, match="JSON"):
        client.upsert("x", [vc.Point("a", [1], {"when": object()})])
    reader = kind(dev.grpc_address, dev.user(role="reader")[1])
    with pytest.raises(vc.PermissionDeniedError):
        reader.create_collection("x", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hurried = kind(f"127.0.0.1:{silent.getsockname()[1]}", token, vc.ClientOptions(timeout=0.3))
        with pytest.raises(vc.DeadlineExceededError):
            hurried.list_collections()
        hurried.close()


def test_reads_are_tried_again_and_hedged(kind, dev):
    _, token = dev.user()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        lonely = kind(address, token, vc.ClientOptions(retries=3, retry_pause=0.05))
        with pytest.raises(vc.UnavailableError):
            lonely.list_collections()
        started = time.monotonic()
        with pytest.raises(vc.UnavailableError):
            lonely.delete("c", "id")
        assert time.monotonic() - started < 5
    hedged = kind(dev.grpc_address, token, vc.ClientOptions(hedge_after=1e-5, gzip=True))
    hedged.create_collection("h", 1, "euclidean")
    hedged.upsert("h", [vc.Point("a", [1])])
    for _ in range(50):
        assert hedged.search("h", [1])[0].id == "a"
    hedged.close()


def test_an_answer_tells_its_shards(client):
    client.create_collection("told", 1, "euclidean")
    client.upsert("told", [vc.Point("a", [1])])
    found = client.search("told", [1], timeout_ms=5000)
    assert isinstance(found, list) and [hit.id for hit in found] == ["a"]
    assert (found.shards_total, found.shards_answered, found.staleness_ms) == (1, 1, 0)


def test_no_proxy_gets_the_token(kind, dev, monkeypatch):
    """What http_proxy names is not even connected to, unless it is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(5)
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        _, token = dev.user()
        direct = kind(dev.grpc_address, token)
        assert direct.list_collections() == []
        direct.close()
        asked = kind(dev.grpc_address, token, vc.ClientOptions(use_proxy=True, timeout=1, retries=0))
        with pytest.raises(vc.VectronError):
            asked.list_collections()
        asked.close()
        connection, _ = proxy.accept()  # the first there was
        assert connection.recv(100).startswith(b"CONNECT")
        connection.close()


class Stop(Exception):
    pass


def test_a_batch_that_is_broken_off_leaves_nothing_running(client):
    client.create_collection("broken", 1, "euclidean")

    def source():
        for i in range(100):
            yield vc.Point(f"p{i}", [i])
        raise Stop

    def progress(stored):
        raise Stop

    for arguments in ({"points": source()},
                      {"points": (vc.Point(f"p{i}", [i]) for i in range(100)), "progress": progress}):
        with pytest.raises(Stop):
            client.upsert_batch("broken", batch_size=10, concurrency=20, **arguments)
        if isinstance(client, Blocking):
            assert not asyncio.all_tasks(client.loop)
    if isinstance(client, Blocking):
        late = asyncio.wait_for(client.client.upsert_batch("broken", source(), batch_size=1,
                                                           concurrency=200), 0.001)
        with pytest.raises((asyncio.TimeoutError, Stop)):
            client.loop.run_until_complete(late)
        assert not asyncio.all_tasks(client.loop)


def test_a_token_is_needed(monkeypatch, dev):
    monkeypatch.delenv("VECTRON_TOKEN", raising=False)
    with pytest.raises(ValueError, match="VECTRON_TOKEN"):
        vc.VectronClient(dev.grpc_address)
    monkeypatch.setenv("VECTRON_TOKEN", dev.user()[1])
    with vc.VectronClient(dev.grpc_address) as client:
        assert client.list_collections() == []


def test_vectors_go_out_as_they_lie_in_memory():
    vector = numpy.arange(1000, dtype="f4")
    request, count = _wire.encode_upsert("c", [vc.Point("a", vector)])
    assert count == 1 and vector.tobytes() in request
    message = _wire.decode("UpsertRequest", request)
    assert list(message.points[0].vector) == list(vector)
    assert vector.tobytes() in _wire.encode_search("c", vector, top_k=3)


def test_the_schema_is_the_servers(tmp_path):
    subprocess.run([ROOT / "clientlibs/python/schema.sh", tmp_path / "schema"], check=True)
    kept = ROOT / "clientlibs/python/vectron_client/schema.binpb"
    assert kept.read_bytes() == (tmp_path / "schema").read_bytes(), "run clientlibs/python/schema.sh"


def test_the_examples_of_the_document_run(dev):
    text = (ROOT / "docs/clients/python.md").read_text(encoding="utf-8")
    names = {"host": dev.grpc_address, "token": dev.user()[1]}
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)


def test_an_upload_outlives_the_server(kind, tmp_path):
    """Killed and started again in the middle: everything is stored, nothing is doubled."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ("--grpc-addr", address)
    deployment = Dev(tmp_path, arguments=arguments).start()
    _, token = deployment.user()
    client = kind(address, token, vc.ClientOptions(retry_writes=True, retries=12, timeout=60))
    client.create_collection("big", 16, "euclidean")
    vectors = numpy.random.default_rng(3).standard_normal((20_000, 16)).astype("f4")
    restarted = []

    def progress(stored):
        nonlocal deployment
        if stored > 8000 and not restarted:
            deployment.process.kill()
            restarted.append(stored)
            deployment = Dev(tmp_path, arguments=arguments).start()

    points = vc.points_from_arrays((f"p{i}" for i in range(20_000)), vectors)
    assert client.upsert_batch("big", points, concurrency=3, progress=progress) == 20_000
    assert restarted
    found = list(client.search_stream("big", vectors[0], top_k=10_000, include_payload=False))
    assert len({hit.id for hit in found}) == 10_000
    for i in range(0, 20_000, 997):
        assert client.get("big", f"p{i}").vector.tobytes() == vectors[i].tobytes()
    wait_until(lambda: b"\nvectron_worker_points 20000\n" in deployment.http().get("/metrics").body,
               what="20,000 points")
    client.close()
    assert deployment.stop() == 0


def test_an_upload_with_a_deadline_says_what_is_stored(kind, tmp_path):
    """The server is killed in the middle and comes back too late: what was told to be stored is there."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ("--grpc-addr", address)
    deployment = Dev(tmp_path, arguments=arguments).start()
    _, token = deployment.user()
    client = kind(address, token, vc.ClientOptions(retry_writes=True, retries=100, timeout=60))
    client.create_collection("big", 16, "euclidean")
    vectors = numpy.random.default_rng(4).standard_normal((20_000, 16)).astype("f4")
    acknowledged = []
    killed = []

    def progress(stored):
        acknowledged.append(stored)
        if stored > 5000 and not killed:
            deployment.process.kill()
            killed.append(stored)

    points = vc.points_from_arrays((f"p{i}" for i in range(20_000)), vectors)
    started = time.monotonic()
    with pytest.raises(vc.BatchError, match="stored points") as failed:
        client.upsert_batch("big", points, progress=progress, timeout=5)
    assert 1 < time.monotonic() - started < 10
    assert failed.value.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    stored = failed.value.stored
    assert stored == acknowledged[-1] and 5000 < stored < 20_000
    deployment = Dev(tmp_path, arguments=arguments).start()
    for i in [*range(0, stored, 101), stored - 1]:
        assert client.get("big", f"p{i}").vector.tobytes() == vectors[i].tobytes()
    # One request more may have been stored: it was under way.
    wait_until(lambda: b"vectron_worker_points" in deployment.http().get("/metrics").body, what="points")
    text = deployment.http().get("/metrics").body.decode()
    count = int(re.search(r"^vectron_worker_points (\d+)$", text, re.M)[1])
    assert stored <= count <= stored + 256
    client.close()
    assert deployment.stop() == 0
