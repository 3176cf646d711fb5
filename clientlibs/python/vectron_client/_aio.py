"""The asyncio client: the methods of VectronClient, awaited. One event loop."""
from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from . import _wire
from ._client import Progress
from .errors import BatchError, VectronError, from_status
from .types import ClientOptions, CollectionStatus, FeedbackItem, Point, SearchResult, SearchResults, Vector


class AsyncVectronClient:
    """As VectronClient, for asyncio."""

    def __init__(self, host: str, token: str | None = None,
                 options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._metadata = (("authorization", f"Bearer {_wire.token_of(token)}"),)
        if self._options.tls or self._options.root_certificates:
            self._channel = grpc.aio.secure_channel(
                host, grpc.ssl_channel_credentials(self._options.root_certificates),
                _wire.channel_options(self._options))
        else:
            self._channel = grpc.aio.insecure_channel(host, _wire.channel_options(self._options))

    async def __aenter__(self) -> AsyncVectronClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close(None)

    async def create_collection(self, name: str, dimension: int, distance: str = "cosine") -> None:
        await self._call("CreateCollection", _wire.encode(
            "CreateCollectionRequest", name=name, dimension=dimension, distance=distance), False)

    async def delete_collection(self, name: str) -> None:
        await self._call("DeleteCollection", _wire.encode("DeleteCollectionRequest", name=name),
                         False)

    async def list_collections(self) -> list[str]:
        data = await self._call("ListCollections", b"", True)
        return list(_wire.decode("ListCollectionsResponse", data).collections)

    async def get_collection_status(self, name: str) -> CollectionStatus:
        return _wire.decode_status(await self._call("GetCollectionStatus", _wire.encode(
            "GetCollectionStatusRequest", name=name), True))

    async def upsert(self, collection: str, points: Iterable[Point]) -> int:
        request, _ = _wire.encode_upsert(collection, points)
        return int(_wire.decode("UpsertResponse",
                                await self._call("Upsert", request, False)).upserted)

    async def upsert_batch(self, collection: str, points: Iterable[Point], batch_size: int = 256,
                           concurrency: int = 1, progress: Progress | None = None,
                           timeout: float | None = None) -> int:
        if batch_size < 1 or concurrency < 1:
            raise ValueError("batch_size and concurrency are at least 1")
        source = iter(points)
        tasks: set[asyncio.Task[int]] = set()
        left = _wire.timeouts(self._options, timeout)
        stored = 0

        async def send(request: bytes, count: int) -> int:
            await self._call("Upsert", request, False, left())
            return count

        try:
            while True:
                request, count = _wire.encode_upsert(collection,
                                                     itertools.islice(source, batch_size))
                if count > 0:
                    tasks.add(asyncio.ensure_future(send(request, count)))
                if not tasks:
                    return stored
                if count == 0 or len(tasks) >= concurrency:
                    done, tasks = await asyncio.wait(tasks,
                                                     return_when=asyncio.FIRST_COMPLETED)
                    failed = [task for task in done if task.exception() is not None]
                    stored += sum(task.result() for task in done if task not in failed)
                    for task in failed:
                        task.result()
                    if progress is not None:
                        progress(stored)
        except VectronError as error:
            raise BatchError(stored, error) from error
        finally:  # whatever ended it: of the source, of progress, or this task's own end
            await _end(tasks)

    async def get(self, collection: str, id: str) -> Point:
        return _wire.decode_point(await self._call("Get", _wire.encode(
            "GetRequest", collection=collection, id=id), True))

    async def delete(self, collection: str, id: str) -> None:
        await self._call("Delete", _wire.encode("DeleteRequest", collection=collection, id=id),
                         False)

    async def search(self, collection: str, vector: Vector, top_k: int = 10, *, query: str = "",
                     include_payload: bool = True, include_vectors: bool = False,
                     exact: bool = False, ef: int = 0, timeout_ms: int = 0,
                     max_staleness_ms: int = 0) -> SearchResults:
        return _wire.decode_search(await self._call("Search", _wire.encode_search(
            collection, vector, top_k=top_k, query=query, include_metadata=include_payload,
            include_vectors=include_vectors, exact=exact, ef=ef, timeout_ms=timeout_ms,
            max_staleness_ms=max_staleness_ms), True))

    async def search_stream(self, collection: str, vector: Vector, top_k: int = 10, *,
                            include_payload: bool = True, include_vectors: bool = False,
                            exact: bool = False, ef: int = 0) -> AsyncIterator[SearchResult]:
        request = _wire.encode_search(collection, vector, top_k=top_k,
                                      include_metadata=include_payload,
                                      include_vectors=include_vectors, exact=exact, ef=ef)
        call = self._channel.unary_stream(_wire.SERVICE + "SearchStream", *_wire.AS_BYTES)(
            request, timeout=self._options.timeout, metadata=self._metadata)
        try:
            async for data in call:
                for result in _wire.decode_search(data):
                    yield result
        except grpc.RpcError as error:
            raise from_status(error.code(), error.details() or "") from None

    async def submit_feedback(self, collection: str, items: Iterable[FeedbackItem], *,
                              query: str = "", result_ids: Iterable[str] = (),
                              context: Mapping[str, str] | None = None) -> str:
        data = await self._call("SubmitFeedback", _wire.encode_feedback(
            collection, query, items, result_ids, context or {}), False)
        return str(_wire.decode("SubmitFeedbackResponse", data).feedback_id)

    # --- Calls

    async def _call(self, method: str, request: bytes, is_read: bool,
                    timeout: float | None = None) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._options.timeout if timeout is None else timeout)
        pauses = _wire.pauses(self._options, is_read)
        while True:
            try:
                return await self._attempt(method, request, is_read, deadline - loop.time())
            except grpc.RpcError as error:
                pause = next(pauses, None)
                if pause is None or not _wire.is_worth_retrying(error.code()) or \
                        loop.time() + pause >= deadline:
                    raise from_status(error.code(), error.details() or "") from None
            await asyncio.sleep(pause)

    def _start(self, method: str, request: bytes, left: float) -> Any:
        return self._channel.unary_unary(_wire.SERVICE + method, *_wire.AS_BYTES)(
            request, timeout=left, metadata=self._metadata,
            compression=_wire.compression_of(self._options))

    async def _attempt(self, method: str, request: bytes, is_read: bool, left: float) -> bytes:
        hedge_after = self._options.hedge_after

        async def run(seconds: float) -> bytes:
            return bytes(await self._start(method, request, seconds))

        if not is_read or hedge_after is None or hedge_after >= left:
            return await run(left)
        tasks = {asyncio.ensure_future(run(left))}
        try:
            done, _ = await asyncio.wait(tasks, timeout=hedge_after)
            if not done:
                tasks.add(asyncio.ensure_future(run(left - hedge_after)))
            pending = set(tasks)
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None]
                if good or not pending:
                    return (good or list(done))[0].result()
        finally:
            await _end(tasks)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """None of them is left running, and none fails unheard."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
