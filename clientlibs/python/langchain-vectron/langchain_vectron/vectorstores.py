"""Documents as points: the text and the metadata are the payload, the id is the point's."""
from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from vectron_client import AlreadyExistsError, NotFoundError, Point, SearchResult, VectronClient


def _refuse(arguments: dict[str, Any]) -> None:
    """A filter that is passed over would give hits that were filtered out."""
    if arguments:
        raise ValueError(f"not supported: {', '.join(sorted(arguments))}")


def _document(id: str, payload: Any) -> Document:
    return Document(id=id, page_content=payload["text"], metadata=dict(payload["metadata"]))


class VectronVectorStore(VectorStore):
    """The documents of one collection, which is made when it is not there.

    distance: of a collection that is made: cosine, euclidean or dot. dimension: likewise; found by embedding
    a text unless told.
    """

    def __init__(self, client: VectronClient, collection: str, embedding: Embeddings, *,
                 distance: str = "cosine", dimension: int | None = None) -> None:
        self._client = client
        self._collection = collection
        self._embedding = embedding
        self._distance = distance
        self._dimension = dimension or len(embedding.embed_query("dimension"))
        self._create()

    def _create(self) -> None:
        try:
            self._client.create_collection(self._collection, self._dimension, self._distance)
        except AlreadyExistsError:
            self._distance = self._client.get_collection_status(self._collection).distance

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    # --- Changes

    def add_texts(self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *,
                  ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Texts without an id get one; one whose id is there replaces the other."""
        _refuse(kwargs)
        texts = list(texts)
        names = [name or str(uuid.uuid4()) for name in (ids or [""] * len(texts))]
        found = metadatas or [{}] * len(texts)
        if not len(texts) == len(names) == len(found):
            raise ValueError(f"{len(texts)} texts, {len(names)} ids, {len(found)} metadatas")
        vectors = self._embedding.embed_documents(texts)
        self._client.upsert_batch(self._collection, (
            Point(name, vector, {"text": text, "metadata": metadata})
            for name, vector, text, metadata in zip(names, vectors, texts, found, strict=True)))
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Those that are not there are none to delete. Without ids: all documents."""
        _refuse(kwargs)
        if ids is None:
            self._client.delete_collection(self._collection)
            self._create()
        else:
            for name in ids:
                self._client.delete(self._collection, name)
        return True

    # --- Questions

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Those that are there, in the order of the ids."""
        documents = []
        for name in ids:
            try:
                point = self._client.get(self._collection, name)
            except NotFoundError:
                continue
            documents.append(_document(point.id, point.payload))
        return documents

    def _hits(self, vector: list[float], k: int, arguments: dict[str, Any],
              include_vectors: bool = False) -> list[SearchResult]:
        _refuse(arguments)
        return self._client.search(self._collection, vector, k, include_vectors=include_vectors)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4,
                                     **kwargs: Any) -> list[tuple[Document, float]]:
        """Scores are distances: smaller is nearer."""
        return [(_document(hit.id, hit.payload), hit.score)
                for hit in self._hits(self._embedding.embed_query(query), k, kwargs)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4,
                                    **kwargs: Any) -> list[Document]:
        return [_document(hit.id, hit.payload) for hit in self._hits(embedding, k, kwargs)]

    def max_marginal_relevance_search(self, query: str, k: int = 4, fetch_k: int = 20,
                                      lambda_mult: float = 0.5, **kwargs: Any) -> list[Document]:
        return self.max_marginal_relevance_search_by_vector(
            self._embedding.embed_query(query), k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(self, embedding: list[float], k: int = 4, fetch_k: int = 20,
                                                lambda_mult: float = 0.5, **kwargs: Any) -> list[Document]:
        hits = self._hits(embedding, fetch_k, kwargs, include_vectors=True)
        if not hits:
            return []
        vectors = [hit.vector.tolist() for hit in hits if hit.vector is not None]
        chosen = maximal_marginal_relevance(numpy.array(embedding), vectors, lambda_mult, k)
        return [_document(hits[i].id, hits[i].payload) for i in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._distance == "cosine":
            return lambda distance: 1 - distance / 2
        if self._distance == "euclidean":
            return lambda distance: 1 / (1 + distance)
        raise ValueError("an inner product has no relevance between 0 and 1")

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings,  # type: ignore[override]
                   metadatas: list[dict[str, Any]] | None = None, *, client: VectronClient, collection: str,
                   ids: list[str] | None = None, distance: str = "cosine") -> VectronVectorStore:
        store = cls(client, collection, embedding, distance=distance)
        store.add_texts(texts, metadatas, ids=ids)
        return store
