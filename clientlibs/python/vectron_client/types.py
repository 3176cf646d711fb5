"""What goes in and comes out."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy
import numpy.typing

Vector = Union[Sequence[float], "numpy.typing.NDArray[Any]"]
"""Finite numbers, as many as the collection's dimension; stored and compared as float32."""


@dataclass
class Point:
    """id: 1 to 512 bytes of UTF-8. vector: of the collection's dimension; comes back as a float32 array.
    payload: a JSON object of at most 1 MiB."""

    id: str
    vector: Vector
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class SearchResult:
    """score: a distance, smaller is nearer (1 - cos, the L2 norm, or minus the inner product). vector: a
    float32 array when it was asked for. rerank_score: greater is better, 0 without reranking."""

    id: str
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)
    vector: numpy.typing.NDArray[numpy.float32] | None = None
    rerank_score: float = 0.0


class SearchResults(list[SearchResult]):
    """A list of hits. shards_total, shards_answered: the shards of the collection, and those that the hits
    are from (fewer only with timeout_ms). staleness_ms: how old the answer may be."""

    shards_total: int = 0
    shards_answered: int = 0
    staleness_ms: int = 0


@dataclass
class ShardStatus:
    shard_id: int
    replicas: list[int]
    leader_id: int
    ready: bool


@dataclass
class CollectionStatus:
    name: str
    dimension: int
    distance: str
    shards: list[ShardStatus]


@dataclass
class FeedbackItem:
    """relevance_score: 1 to 5, 0 for none given."""

    result_id: str
    relevance_score: int = 0
    clicked: bool = False
    position: int = 0
    comment: str = ""


@dataclass
class ClientOptions:
    """timeout: seconds that a call with its retries may take. retries: how often a read that failed with
    UNAVAILABLE is tried again, with pauses at random below a bound that doubles from retry_pause up to
    two seconds; writes only with retry_writes (an upsert or delete that is done twice does no harm).
    hedge_after: seconds after which a read that has not answered is sent a second time; the first answer
    counts. tls: with the system's certificates, or with root_certificates (PEM). gzip: compress requests.
    use_proxy: go through the proxy that http_proxy and its like name; otherwise no heed is paid to them."""

    timeout: float = 30.0
    retries: int = 3
    retry_pause: float = 0.05
    retry_writes: bool = False
    hedge_after: float | None = None
    tls: bool = False
    root_certificates: bytes | None = None
    gzip: bool = False
    use_proxy: bool = False


def points_from_arrays(ids: Iterable[str], vectors: numpy.typing.NDArray[Any],
                       payloads: Iterable[Mapping[str, Any]] | None = None) -> Iterator[Point]:
    """Points of the rows of a two-dimensional array, which are not copied."""
    rows = iter(vectors)
    if payloads is None:
        for name, row in zip(ids, rows, strict=False):
            yield Point(name, row)
        return
    for name, row, payload in zip(ids, rows, payloads, strict=False):
        yield Point(name, row, payload)
