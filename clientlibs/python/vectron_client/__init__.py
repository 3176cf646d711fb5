"""Client of the Vectron vector database.

    with VectronClient("127.0.0.1:8081", token) as client:
        client.create_collection("words", 100)
        client.upsert("words", [Point("king", vector, {"rank": 1})])
        for hit in client.search("words", vector, top_k=10):
            print(hit.id, hit.score)

Access is by an SDK token, given or in the environment as VECTRON_TOKEN. AsyncVectronClient has the same
methods for asyncio.
"""
from ._aio import AsyncVectronClient
from ._client import VectronClient
from .errors import (
    AlreadyExistsError,
    AuthenticationError,
    BatchError,
    DeadlineExceededError,
    InternalServerError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    VectronError,
)
from .types import (
    ClientOptions,
    CollectionStatus,
    FeedbackItem,
    Point,
    SearchResult,
    SearchResults,
    ShardStatus,
    points_from_arrays,
)

__all__ = [
    "AlreadyExistsError", "AsyncVectronClient", "AuthenticationError", "BatchError", "ClientOptions",
    "CollectionStatus", "DeadlineExceededError", "FeedbackItem", "InternalServerError",
    "InvalidArgumentError", "NotFoundError", "PermissionDeniedError", "Point",
    "ResourceExhaustedError", "SearchResult", "SearchResults", "ShardStatus", "UnavailableError",
    "VectronClient", "VectronError", "points_from_arrays",
]
