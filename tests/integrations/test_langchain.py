"""langchain-vectron: the standard tests of langchain-tests, and what they leave out."""
import itertools
import sys

import pytest
from langchain_core.documents import Document
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from support.process import ROOT

sys.path[:0] = [str(ROOT / "clientlibs/python"), str(ROOT / "clientlibs/python/langchain-vectron")]

from langchain_vectron import VectronVectorStore  # noqa: E402 # needs the path above
from vectron_client import VectronClient  # noqa: E402

numbers = itertools.count()


@pytest.fixture(scope="module")
def client(dev):
    with VectronClient(dev.grpc_address, dev.user()[1]) as client:
        yield client


class TestStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, client):
        name = f"standard{next(numbers)}"
        yield VectronVectorStore(client, name, self.get_embeddings())
        client.delete_collection(name)


@pytest.fixture(params=["cosine", "euclidean", "dot"])
def store(client, request):
    name = f"own{next(numbers)}"
    yield VectronVectorStore(client, name, VectorStoreIntegrationTests.get_embeddings(),
                             distance=request.param)
    client.delete_collection(name)


TEXTS = [f"text number {i}" for i in range(30)]


def test_searches_find_what_is_near(store):
    ids = store.add_texts(TEXTS, [{"i": i, "deep": {"list": [None, i / 2]}} for i in range(30)])
    assert len(set(ids)) == 30
    vector = store.embeddings.embed_query("text number 7")
    best = store.similarity_search_by_vector(vector, 30)
    assert [found.page_content for found in store.similarity_search("text number 7", 30)] == \
        [found.page_content for found in best]
    scores = [score for _, score in store.similarity_search_with_score("text number 7", k=30)]
    assert scores == sorted(scores) and len(scores) == 30
    if store._distance != "dot":
        assert best[0] == Document(id=ids[7], page_content="text number 7",
                                   metadata={"i": 7, "deep": {"list": [None, 3.5]}})
        found, relevance = store.similarity_search_with_relevance_scores("text number 7", k=1)[0]
        assert found.id == ids[7] and relevance == pytest.approx(1, abs=1e-3)
    else:
        with pytest.raises(ValueError, match="relevance"):
            store.similarity_search_with_relevance_scores("text number 7")
    varied = store.max_marginal_relevance_search("text number 7", k=5, fetch_k=20, lambda_mult=0.3)
    assert len({found.id for found in varied}) == 5
    assert store.as_retriever(search_kwargs={"k": 3}).invoke("text number 7") == best[:3]


def test_what_is_not_supported_is_refused(store):
    store.add_texts(TEXTS[:2])
    for call in (store.similarity_search, store.similarity_search_with_score,
                 store.max_marginal_relevance_search):
        with pytest.raises(ValueError, match="filter"):
            call("x", filter={"i": 1})
    with pytest.raises(ValueError, match="2 texts"):
        store.add_texts(TEXTS[:2], ids=["a"])


def test_all_are_deleted_and_the_collection_is_there_again(store, client):
    store.add_texts(TEXTS[:3], ids=["a", "b", "c"])
    assert store.delete() and store.similarity_search("x") == []
    again = VectronVectorStore.from_texts(TEXTS[:3], store.embeddings, client=client,
                                          collection=store._collection, ids=["a", "b", "c"])
    assert again._distance == store._distance
    assert [found.id for found in store.get_by_ids(["c", "x", "a"])] == ["c", "a"]
