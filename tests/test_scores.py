"""Scores and neighbours against NumPy, for the three distances, and on real words."""
import numpy
import pytest

from support import api
from support.process import ROOT


def distances(kind, points, query):
    points, query = points.astype("f8"), query.astype("f8")
    if kind == "euclidean":
        return numpy.linalg.norm(points - query, axis=1)
    if kind == "dot":
        return -points @ query
    return 1 - points @ query / numpy.linalg.norm(points, axis=1) / numpy.linalg.norm(query)


def fill(client, name, vectors, distance, ids=None):
    client.CreateCollection(name=name, dimension=vectors.shape[1], distance=distance)
    for start in range(0, len(vectors), 256):
        rows = range(start, min(start + 256, len(vectors)))
        client.Upsert(collection=name, points=[
            api.vectron.Point(id=ids[i] if ids else f"{i:06}", vector=vectors[i]) for i in rows])


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("dimension", [1, 3, 100, 257])
def test_scores_are_numpys(cluster, distance, dimension):
    _, token = cluster.user()
    client = cluster.grpc(token)
    random = numpy.random.default_rng(dimension)
    vectors = random.standard_normal((1000, dimension)).astype("f4")
    fill(client, "s", vectors, distance)
    for query in random.standard_normal((5, dimension)).astype("f4"):
        expected = distances(distance, vectors, query)
        order = numpy.lexsort((numpy.arange(1000), expected))[:50]
        results = client.Search(collection="s", vector=query, top_k=50, exact=True).results
        scores = numpy.array([hit.score for hit in results])
        assert numpy.allclose(scores, expected[[int(hit.id) for hit in results]], rtol=1e-5,
                              atol=1e-6)
        assert numpy.allclose(scores, expected[order], rtol=1e-5, atol=1e-6)
        assert (numpy.diff(scores) >= 0).all()


def test_ties_go_by_id(cluster):
    _, token = cluster.user()
    client = cluster.grpc(token)
    client.CreateCollection(name="t", dimension=2, distance="euclidean")
    ids = [f"{i:03}" for i in range(100)]
    client.Upsert(collection="t", points=[
        api.vectron.Point(id=name, vector=[1, 1]) for name in reversed(ids)])
    found = [hit.id for hit in client.Search(collection="t", vector=[0, 0], top_k=60).results]
    assert found == ids[:60]


@pytest.mark.parametrize("word", ["paris", "king", "music"])
def test_neighbours_of_real_words(words, word):
    client, vectors, names = words
    query = vectors[names.index(word)]
    expected = numpy.argsort(distances("cosine", vectors, query), kind="stable")[:10]
    found = client.Search(collection="words", vector=query, top_k=10).results
    assert [hit.id for hit in found] == [names[i] for i in expected]


@pytest.fixture(scope="module")
def words(cluster):
    _, token = cluster.user()
    client = cluster.grpc(token)
    vectors = numpy.load(ROOT / "data/words/words.npy")
    names = (ROOT / "data/words/words.txt").read_text(encoding="utf-8").split("\n")[:-1]
    fill(client, "words", vectors, "cosine", names)
    return client, vectors, names


def test_fewer_hits_only_if_fewer_points_exist(words):
    client, vectors, _ = words
    results = client.Search(collection="words", vector=vectors[0], top_k=10000).results
    assert len(results) == 10000
    assert len({hit.id for hit in results}) == 10000
