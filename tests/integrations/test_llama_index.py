"""llama-index-vector-stores-vectron: what LlamaIndex's own store in memory does with the same nodes, the
index over it, and what is refused. The project publishes no test suite for stores."""
import itertools
import sys

import numpy
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from support.process import ROOT

sys.path[:0] = [str(ROOT / "clientlibs/python"),
                str(ROOT / "clientlibs/python/llama-index-vector-stores-vectron")]

from llama_index.vector_stores.vectron import VectronVectorStore  # noqa: E402 # needs the path above
from vectron_client import VectronClient  # noqa: E402

numbers = itertools.count()
DIMENSION = 8


@pytest.fixture(scope="module")
def client(dev):
    with VectronClient(dev.grpc_address, dev.user()[1]) as client:
        yield client


@pytest.fixture(params=["cosine", "euclidean", "dot"])
def store(client, request):
    name = f"nodes{next(numbers)}"
    yield VectronVectorStore(client, name, DIMENSION, request.param)
    client.delete_collection(name)
    client.delete_collection(name + ".documents")


def make_nodes(count):
    random = numpy.random.default_rng(1)
    return [TextNode(id_=f"n{i}", text=f"text {i}", embedding=random.standard_normal(DIMENSION).tolist(),
                     metadata={"i": i, "kind": "even" if i % 2 == 0 else "odd"},
                     relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"d{i % 3}")})
            for i in range(count)]


def ask(vector, count, **more):
    return VectorStoreQuery(query_embedding=vector, similarity_top_k=count, **more)


def names(result):
    return list(result.ids)


def test_it_is_a_store(store):
    assert isinstance(store, BasePydanticVectorStore) and store.stores_text
    assert store.query(ask([1.0] * DIMENSION, 3)).nodes == []


def test_answers_are_those_of_the_store_in_memory(store):
    nodes = make_nodes(60)
    assert store.add(nodes) == [node.node_id for node in nodes]
    result = store.query(ask(nodes[5].embedding, 20))
    assert result.similarities == sorted(result.similarities, reverse=True) and len(result.ids) == 20
    if store.distance == "cosine":
        memory = SimpleVectorStore()
        memory.add(nodes)
        wanted = memory.query(ask(nodes[5].embedding, 20))
        assert names(result) == names(wanted)
        assert result.similarities == pytest.approx(wanted.similarities, abs=1e-5)
    if store.distance != "dot":
        first = result.nodes[0]
        assert (first.node_id, first.get_content(), first.metadata, first.ref_doc_id) == \
            ("n5", "text 5", {"i": 5, "kind": "odd"}, "d2")


def test_nodes_and_documents_are_deleted(store):
    nodes = make_nodes(30)
    store.add(nodes[:20])
    store.add(nodes[20:])
    store.add(nodes[:5])  # again
    found = lambda: set(store.query(ask([1.0] * DIMENSION, 100)).ids)  # noqa: E731
    assert len(found()) == 30
    store.delete("d1")
    store.delete("nobody")
    assert found() == {f"n{i}" for i in range(30) if i % 3 != 1}
    store.delete_nodes(["n0", "n2", "n1"])
    assert found() == {f"n{i}" for i in range(3, 30) if i % 3 != 1}
    assert [node.node_id for node in store.get_nodes(["n5", "n1", "n3"])] == ["n5", "n3"]
    store.clear()
    assert found() == set()
    store.add(nodes)
    assert len(found()) == 30


@pytest.mark.asyncio
async def test_awaited(store):
    nodes = make_nodes(10)
    await store.async_add(nodes)
    assert set((await store.aquery(ask(nodes[0].embedding, 10))).ids) == {f"n{i}" for i in range(10)}
    await store.adelete("d0")
    assert set((await store.aquery(ask(nodes[0].embedding, 10))).ids) == \
        {f"n{i}" for i in range(10) if i % 3}


def test_what_is_not_supported_is_refused(store):
    store.add(make_nodes(3))
    filters = MetadataFilters(filters=[MetadataFilter(key="kind", value="odd")])
    vector = [1.0] * DIMENSION
    for query in (ask(vector, 2, filters=filters), ask(vector, 2, node_ids=["n1"]),
                  ask(vector, 2, doc_ids=["d1"]), ask(vector, 2, mode=VectorStoreQueryMode.HYBRID)):
        with pytest.raises(NotImplementedError):
            store.query(query)
    with pytest.raises(NotImplementedError):
        store.delete_nodes(filters=filters)
    with pytest.raises(NotImplementedError):
        store.get_nodes(filters=filters)
    with pytest.raises(ValueError):
        store.query(VectorStoreQuery(similarity_top_k=2))


def test_an_index_over_it(client):
    store = VectronVectorStore(client, "index", DIMENSION, "euclidean")
    documents = [Document(text=f"This is document {i}.", id_=f"doc{i}", metadata={"i": i}) for i in range(5)]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MockEmbedding(embed_dim=DIMENSION))
    found = index.as_retriever(similarity_top_k=10).retrieve("document")
    assert {hit.node.metadata["i"] for hit in found} == {0, 1, 2, 3, 4}
    index.delete_ref_doc("doc3")
    again = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(embed_dim=DIMENSION))
    found = again.as_retriever(similarity_top_k=10).retrieve("document")
    assert {hit.node.metadata["i"] for hit in found} == {0, 1, 2, 4}
    assert {hit.node.get_content() for hit in found} == {f"This is document {i}." for i in (0, 1, 2, 4)}
