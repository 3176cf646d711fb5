"""The synchronous client."""
from __future__ import annotations

import collections
import itertools
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import grpc

from . import _wire
from .errors import BatchError, DeadlineExceededError, VectronError, from_status
from .types import ClientOptions, CollectionStatus, FeedbackItem, Point, SearchResult, SearchResults, Vector

Progress = Callable[[int], None]


class VectronClient:
    """A connection to a gateway, for any number of threads.

    host: "HOST:PORT" of its gRPC port. token: an SDK token, or None for VECTRON_TOKEN. Every method
    raises a VectronError; ValueError or TypeError for what cannot even be sent.
    """

    def __init__(self, host: str, token: str | None = None,
                 options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._metadata = (("authorization", f"Bearer {_wire.token_of(token)}"),)
        self._methods: dict[str, Any] = {}
        if self._options.tls or self._options.root_certificates:
            self._channel = grpc.secure_channel(
                host, grpc.ssl_channel_credentials(self._options.root_certificates),
                _wire.channel_options(self._options))
        else:
            self._channel = grpc.insecure_channel(host, _wire.channel_options(self._options))

    def __enter__(self) -> VectronClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Calls under way end with an error."""
        self._channel.close()

    # --- Collections

    def create_collection(self, name: str, dimension: int, distance: str = "cosine") -> None:
        """name: 1 to 128 of A-Z a-z 0-9 _ . -; dimension: 1 to 65,535; distance: cosine, euclidean or
        dot."""
        self._write("CreateCollection", _wire.encode("CreateCollectionRequest", name=name,
                                                     dimension=dimension, distance=distance))

    def delete_collection(self, name: str) -> None:
        self._write("DeleteCollection", _wire.encode("DeleteCollectionRequest", name=name))

    def list_collections(self) -> list[str]:
        """By name."""
        data = self._read("ListCollections", b"")
        return list(_wire.decode("ListCollectionsResponse", data).collections)

    def get_collection_status(self, name: str) -> CollectionStatus:
        return _wire.decode_status(self._read("GetCollectionStatus", _wire.encode(
            "GetCollectionStatusRequest", name=name)))

    # --- Points

    def upsert(self, collection: str, points: Iterable[Point]) -> int:
        """Store points in one request, which is checked whole before anything is stored. The last one of
        an id wins. Returns how many; they are on disk, and searches find them."""
        request, _ = _wire.encode_upsert(collection, points)
        return int(_wire.decode("UpsertResponse", self._write("Upsert", request)).upserted)

    def upsert_batch(self, collection: str, points: Iterable[Point], batch_size: int = 256,
                     concurrency: int = 1, progress: Progress | None = None,
                     timeout: float | None = None) -> int:
        """Store any number of points in requests of batch_size, at most `concurrency` of them under way.
        progress is called with the number of stored points after each. timeout: seconds for the whole.
        BatchError: how many are known to be stored."""
        if batch_size < 1 or concurrency < 1:
            raise ValueError("batch_size and concurrency are at least 1")
        source = iter(points)
        under_way: collections.deque[tuple[bytes, int, Any]] = collections.deque()
        left = _wire.timeouts(self._options, timeout)
        stored = 0
        try:
            while True:
                request, count = _wire.encode_upsert(collection,
                                                     itertools.islice(source, batch_size))
                if count > 0:
                    under_way.append((request, count, self._start("Upsert", request, left())))
                if not under_way:
                    return stored
                if count == 0 or len(under_way) >= concurrency:
                    request, count, call = under_way.popleft()
                    self._call("Upsert", request, False, call, left())
                    stored += count
                    if progress is not None:
                        progress(stored)
        except VectronError as error:
            raise BatchError(stored, error) from error
        finally:  # whatever ended it: of the source, of progress, of the keyboard
            for _, _, call in under_way:
                call.cancel()

    def get(self, collection: str, id: str) -> Point:
        """The point as it was stored, bit for bit. NotFoundError."""
        return _wire.decode_point(self._read("Get", _wire.encode("GetRequest",
                                                                 collection=collection, id=id)))

    def delete(self, collection: str, id: str) -> None:
        """An id that is not there is no error."""
        self._write("Delete", _wire.encode("DeleteRequest", collection=collection, id=id))

    # --- Search

    def search(self, collection: str, vector: Vector, top_k: int = 10, *, query: str = "",
               include_payload: bool = True, include_vectors: bool = False, exact: bool = False,
               ef: int = 0, timeout_ms: int = 0, max_staleness_ms: int = 0) -> SearchResults:
        """The nearest points, nearest first. top_k: up to 10,000. query: text for the reranker. ef: how
        much effort, 0 lets the server choose; exact compares with every point. timeout_ms: leave out
        shards that have not answered by then; the result's shards_answered says how many have."""
        return _wire.decode_search(self._read("Search", _wire.encode_search(
            collection, vector, top_k=top_k, query=query, include_metadata=include_payload,
            include_vectors=include_vectors, exact=exact, ef=ef, timeout_ms=timeout_ms,
            max_staleness_ms=max_staleness_ms)))

    def search_stream(self, collection: str, vector: Vector, top_k: int = 10, *,
                      include_payload: bool = True, include_vectors: bool = False,
                      exact: bool = False, ef: int = 0) -> Iterator[SearchResult]:
        """As search, for many hits: they come while the rest is on its way."""
        request = _wire.encode_search(collection, vector, top_k=top_k,
                                      include_metadata=include_payload,
                                      include_vectors=include_vectors, exact=exact, ef=ef)
        call = self._channel.unary_stream(_wire.SERVICE + "SearchStream", *_wire.AS_BYTES)(
            request, timeout=self._options.timeout, metadata=self._metadata)
        try:
            for data in call:
                yield from _wire.decode_search(data)
        except grpc.RpcError as error:
            raise from_status(error.code(), error.details() or "") from None

    def submit_feedback(self, collection: str, items: Iterable[FeedbackItem], *, query: str = "",
                        result_ids: Iterable[str] = (),
                        context: Mapping[str, str] | None = None) -> str:
        """How good results were; returns the feedback's id."""
        data = self._write("SubmitFeedback", _wire.encode_feedback(
            collection, query, items, result_ids, context or {}))
        return str(_wire.decode("SubmitFeedbackResponse", data).feedback_id)

    # --- Calls

    def _method(self, name: str) -> Any:
        """Made once for each name; that two threads make one at the same time does no harm."""
        method = self._methods.get(name)
        if method is None:
            method = self._channel.unary_unary(_wire.SERVICE + name, *_wire.AS_BYTES)
            self._methods[name] = method
        return method

    def _start(self, method: str, request: bytes, timeout: float) -> Any:
        return self._method(method).future(request, timeout=timeout, metadata=self._metadata,
                                           compression=_wire.compression_of(self._options))

    def _read(self, method: str, request: bytes) -> bytes:
        return self._call(method, request, True)

    def _write(self, method: str, request: bytes) -> bytes:
        return self._call(method, request, False)

    def _call(self, method: str, request: bytes, is_read: bool, started: Any = None,
              timeout: float | None = None) -> bytes:
        """With retries, all within the timeout."""
        deadline = time.monotonic() + (self._options.timeout if timeout is None else timeout)
        pauses = _wire.pauses(self._options, is_read)
        hedge_after = self._options.hedge_after
        while True:
            left = deadline - time.monotonic()
            try:
                if started is not None:
                    started, call = None, started
                    return bytes(call.result())
                if is_read and hedge_after is not None and hedge_after < left:
                    return self._wait(method, request, hedge_after, left)
                # Quicker than a future, which needs a thread of the channel.
                return bytes(self._method(method)(
                    request, timeout=left, metadata=self._metadata,
                    compression=_wire.compression_of(self._options)))
            except grpc.RpcError as error:
                pause = next(pauses, None)
                if pause is None or not _wire.is_worth_retrying(error.code()) or \
                        time.monotonic() + pause >= deadline:
                    raise from_status(error.code(), error.details() or "") from None
            except grpc.FutureCancelledError:
                raise VectronError("the client was closed", grpc.StatusCode.CANCELLED) from None
            time.sleep(pause)

    def _wait(self, method: str, request: bytes, hedge_after: float, left: float) -> bytes:
        """The answer of a read, or of the second one that is sent when the first is late."""
        first = self._start(method, request, left)
        try:
            return bytes(first.result(timeout=hedge_after))
        except grpc.FutureTimeoutError:
            pass
        calls = [first, self._start(method, request, left - hedge_after)]
        done = _first_done(calls, left)
        for call in calls:
            if call is not done:
                call.cancel()
        if done is None:
            raise DeadlineExceededError("no answer in time", grpc.StatusCode.DEADLINE_EXCEEDED)
        return bytes(done.result())


def _first_done(calls: list[Any], timeout: float) -> Any:
    """The first that answers; one that fails counts only when the others have failed."""
    ended: queue.Queue[Any] = queue.Queue()
    for call in calls:
        call.add_done_callback(ended.put)
    deadline = time.monotonic() + timeout
    last = None
    for _ in calls:
        try:
            last = ended.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return last
        if last.code() == grpc.StatusCode.OK:
            return last
    return last
