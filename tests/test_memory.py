"""The memory budget: obeyed, told truthfully, and nothing else stops when it is used up."""
import re
import time

import grpc
import numpy
import pytest

from support import api
from support.cluster import Dev

BUDGET = 64_000_000
DIMENSION = 100
BATCH = 500


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    deployment = Dev(tmp_path_factory.mktemp("small"), arguments=("--memory", BUDGET)).start()
    yield deployment
    assert deployment.stop() == 0, deployment.process.output()


def batch(vectors, start):
    return [api.vectron.Point(id=f"p{i}", vector=vectors[i]) for i in range(start, start + BATCH)]


def memory(deployment):
    """{component: bytes} and the budget, as /metrics has them after the next heartbeat."""
    time.sleep(3)
    text = deployment.http().get("/metrics").body.decode()
    parts = dict(re.findall(r'vectron_worker_memory_bytes\{component="(\w+)"\} (\d+)', text))
    budget = re.search(r"vectron_worker_memory_budget_bytes (\d+)", text)[1]
    return {name: int(value) for name, value in parts.items()}, int(budget)


def test_the_budget_is_obeyed_and_the_rest_goes_on(small):
    _, token = small.user()
    client = small.grpc(token)
    client.CreateCollection(name="c", dimension=DIMENSION, distance="euclidean")
    vectors = numpy.random.default_rng(1).standard_normal((100_000, DIMENSION)).astype("f4")
    idle = small.process.resident_bytes()
    stored = 0
    with pytest.raises(grpc.RpcError) as refused:
        for start in range(0, len(vectors), BATCH):
            client.Upsert(collection="c", points=batch(vectors, start))
            stored = start + BATCH
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"--memory) is {BUDGET} bytes" in refused.value.details()
    assert stored > 10_000
    # Nothing of the refused batch is there.
    with pytest.raises(grpc.RpcError) as missing:
        client.Get(collection="c", id=f"p{stored}")
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND

    parts, budget = memory(small)
    assert budget == BUDGET
    assert set(parts) == {"vectors", "graph", "ids", "documents"}
    # RocksDB's buffers and caches change by themselves after the last check.
    assert sum(parts.values()) <= 1.05 * BUDGET
    # What is told is what it costs: huge pages, allocators and requests make up the rest.
    grown = small.process.resident_bytes() - idle
    assert 0.6 * grown < sum(parts.values()) < 1.5 * grown, (parts, grown)

    # Searches, reads, changes in place where a slot is free, and deletes go on.
    assert len(client.Search(collection="c", vector=vectors[7], top_k=10).results) == 10
    assert client.Get(collection="c", id="p7").point.id == "p7"
    for i in range(2000):
        client.Delete(collection="c", id=f"p{i}")
    deadline = time.monotonic() + 20
    while True:
        try:
            client.Upsert(collection="c", points=batch(vectors, stored))
            break
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert time.monotonic() < deadline, "deleted points never made room"
            time.sleep(0.2)
    hits = client.Search(collection="c", vector=vectors[stored + 3], top_k=1).results
    assert hits[0].id == f"p{stored + 3}"


def test_what_is_stored_is_served_under_a_smaller_budget(tmp_path):
    deployment = Dev(tmp_path).start()
    _, token = deployment.user()
    client = deployment.grpc(token)
    client.CreateCollection(name="c", dimension=DIMENSION, distance="cosine")
    vectors = numpy.random.default_rng(2).standard_normal((2 * BATCH, DIMENSION)).astype("f4")
    client.Upsert(collection="c", points=batch(vectors, 0))
    assert deployment.stop() == 0
    deployment = Dev(tmp_path, environment={"VECTRON_MEMORY": "1000"}).start()
    client = deployment.grpc(token)
    assert client.Search(collection="c", vector=vectors[9], top_k=1).results[0].id == "p9"
    with pytest.raises(grpc.RpcError) as refused:
        client.Upsert(collection="c", points=batch(vectors, BATCH))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    client.Delete(collection="c", id="p9")
    assert deployment.stop() == 0
