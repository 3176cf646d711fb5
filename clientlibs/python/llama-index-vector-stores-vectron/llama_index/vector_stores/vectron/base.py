"""Nodes as points: what LlamaIndex writes for a node is the payload, its id is the point's."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from vectron_client import AlreadyExistsError, NotFoundError, Point, VectronClient


class VectronVectorStore(BasePydanticVectorStore):
    """The nodes of one collection, which is made when it is not there, with a second one beside it
    (`.documents`) that keeps which nodes a document has."""

    stores_text: bool = True
    collection: str
    dimension: int
    distance: str

    _client: VectronClient = PrivateAttr()

    def __init__(self, client: VectronClient, collection: str, dimension: int,
                 distance: str = "cosine") -> None:
        # The base declares no __init__ of its fields; pydantic makes one.
        super().__init__(collection=collection, dimension=dimension,  # type: ignore[call-arg]
                         distance=distance, stores_text=True)
        self._client = client
        self._create()

    @classmethod
    def class_name(cls) -> str:
        return "VectronVectorStore"

    @property
    def client(self) -> VectronClient:
        return self._client

    @property
    def _documents(self) -> str:
        return self.collection + ".documents"

    def _create(self) -> None:
        try:
            self._client.create_collection(self._documents, 1, "euclidean")
        except AlreadyExistsError:
            pass
        try:
            self._client.create_collection(self.collection, self.dimension, self.distance)
        except AlreadyExistsError:
            self.distance = self._client.get_collection_status(self.collection).distance

    # --- Changes

    def _nodes_of(self, document: str) -> list[str]:
        try:
            payload = self._client.get(self._documents, document).payload
        except NotFoundError:
            return []
        return list(payload["nodes"])

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """A node whose id is there replaces the other."""
        documents: defaultdict[str, list[str]] = defaultdict(list)
        for node in nodes:
            if node.ref_doc_id:
                documents[node.ref_doc_id].append(node.node_id)
        # First which nodes a document has: a node that is stored can then always be deleted with it.
        for document, names in documents.items():
            merged = list(dict.fromkeys(self._nodes_of(document) + names))
            self._client.upsert(self._documents, [Point(document, [1], {"nodes": merged})])
        self._client.upsert_batch(self.collection, (
            Point(node.node_id, node.get_embedding(),
                  {"text": node.get_content(metadata_mode=MetadataMode.NONE),
                   "node": node_to_metadata_dict(node, remove_text=True)}) for node in nodes))
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        for name in self._nodes_of(ref_doc_id):
            self._client.delete(self.collection, name)
        self._client.delete(self._documents, ref_doc_id)

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None,
                     **delete_kwargs: Any) -> None:
        if filters is not None:
            raise NotImplementedError("filters are not supported")
        for name in node_ids or []:
            self._client.delete(self.collection, name)

    def clear(self) -> None:
        self._client.delete_collection(self.collection)
        self._client.delete_collection(self._documents)
        self._create()

    # --- Questions

    @staticmethod
    def _node(payload: Any) -> BaseNode:
        node: BaseNode = metadata_dict_to_node(dict(payload["node"]), text=payload["text"])
        return node

    def get_nodes(self, node_ids: list[str] | None = None,
                  filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Those that are there, in the order of the ids."""
        if node_ids is None or filters is not None:
            raise NotImplementedError("nodes are found by their ids")
        nodes = []
        for name in node_ids:
            try:
                nodes.append(self._node(self._client.get(self.collection, name).payload))
            except NotFoundError:
                continue
        return nodes

    def _similarity(self, score: float) -> float:
        if self.distance == "cosine":
            return 1 - score
        return 1 / (1 + score) if self.distance == "euclidean" else -score

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        if query.mode != VectorStoreQueryMode.DEFAULT:
            raise NotImplementedError(f"the mode {query.mode} is not supported")
        if query.filters is not None and query.filters.filters or query.node_ids or query.doc_ids:
            raise NotImplementedError("filters are not supported")
        if query.query_embedding is None:
            raise ValueError("a query needs an embedding")
        hits = self._client.search(self.collection, query.query_embedding, query.similarity_top_k)
        return VectorStoreQueryResult(nodes=[self._node(hit.payload) for hit in hits],
                                      similarities=[self._similarity(hit.score) for hit in hits],
                                      ids=[hit.id for hit in hits])
