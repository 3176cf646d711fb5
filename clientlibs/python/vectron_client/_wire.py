"""Messages to and from bytes. The classes are built from the descriptors in schema.binpb; vectors go in
and out as one block of memory, past the message classes, which would make a Python float of each value.
"""
from __future__ import annotations

import importlib.resources
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grpc
import numpy
import numpy.typing
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from .types import (
    ClientOptions,
    CollectionStatus,
    FeedbackItem,
    Point,
    SearchResult,
    SearchResults,
    ShardStatus,
    Vector,
)

SERVICE = "/vectron.v1.VectronService/"
MESSAGE_SIZE_MAX = 256 << 20
FLOAT32 = numpy.dtype("<f4")
RETRY_PAUSE_MAX = 2.0  # seconds, so that a server that is back is soon found
# Requests and answers are encoded and decoded here, not by the channel.
AS_BYTES: Any = (None, None)
BYTES_FIELD = 2  # the wire type of fields with a length


def _load() -> dict[str, Any]:
    data = importlib.resources.files("vectron_client").joinpath("schema.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(data)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    names = [message.name for file in files.file if file.package == "vectron.v1"
             for message in file.message_type]
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and later
        return {name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"vectron.v1.{name}")) for name in names}
    factory: Any = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(pool.FindMessageTypeByName(f"vectron.v1.{name}"))
            for name in names}


MESSAGES = _load()


# --- Numbers of the wire


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | BYTES_FIELD) + _varint(len(data)) + data


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields with a length of a message's bytes."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read_varint(data, at)
        elif kind == BYTES_FIELD:
            size, at = _read_varint(data, at)
            yield tag >> 3, data[at:at + size]
            at += size
        else:
            at += 4 if kind == 5 else 8


def _vector_bytes(vector: Vector) -> bytes:
    array = numpy.asarray(vector, dtype=FLOAT32)
    if array.ndim != 1:
        raise ValueError(f"a vector has one dimension, not {array.ndim}")
    return array.tobytes()


def _vector_of(data: memoryview, number: int) -> numpy.typing.NDArray[numpy.float32]:
    blocks = [bytes(value) for field, value in _fields(data) if field == number]
    return numpy.frombuffer(b"".join(blocks), dtype=FLOAT32)


# --- Payloads: JSON objects as google.protobuf.Struct


def _from_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "struct_value":
        return _from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _from_struct(struct: Any) -> dict[str, Any]:
    return {name: _from_value(value) for name, value in struct.fields.items()}


def _set_value(out: Any, value: Any) -> None:
    if value is None:
        out.null_value = 0
    elif isinstance(value, bool):
        out.bool_value = value
    elif isinstance(value, (int, float, numpy.integer, numpy.floating)):
        out.number_value = float(value)
    elif isinstance(value, str):
        out.string_value = value
    elif isinstance(value, Mapping):
        out.struct_value.SetInParent()
        _set_struct(out.struct_value, value)
    elif isinstance(value, (list, tuple)):
        out.list_value.SetInParent()
        for item in value:
            _set_value(out.list_value.values.add(), item)
    else:
        raise TypeError(f"a payload holds JSON values, not {type(value).__name__}")


def _set_struct(out: Any, payload: Mapping[str, Any]) -> None:
    for name, value in payload.items():
        _set_value(out.fields[name], value)


def _payload_of(message: Any) -> dict[str, Any]:
    if message.HasField("document"):
        return _from_struct(message.document)
    return dict(message.payload)


# --- Requests


def encode(message_name: str, /, **fields: Any) -> bytes:
    data: bytes = MESSAGES[message_name](**fields).SerializeToString()
    return data


def encode_upsert(collection: str, points: Iterable[Point]) -> tuple[bytes, int]:
    """The request and how many points it has."""
    parts = [encode("UpsertRequest", collection=collection)]
    for point in points:
        message = MESSAGES["Point"](id=point.id)
        if point.payload:
            _set_struct(message.document, point.payload)
        parts.append(_field(2, message.SerializeToString() +
                            _field(2, _vector_bytes(point.vector))))
    return b"".join(parts), len(parts) - 1


def encode_search(collection: str, vector: Vector, **fields: Any) -> bytes:
    return encode("SearchRequest", collection=collection, **fields) + \
        _field(2, _vector_bytes(vector))


def encode_feedback(collection: str, query: str, items: Iterable[FeedbackItem],
                    result_ids: Iterable[str], context: Mapping[str, str]) -> bytes:
    message = MESSAGES["SubmitFeedbackRequest"](collection=collection, query=query,
                                                result_ids=list(result_ids), context=dict(context))
    for item in items:
        message.feedback_items.add(result_id=item.result_id, relevance_score=item.relevance_score,
                                   clicked=item.clicked, position=item.position,
                                   comment=item.comment)
    data: bytes = message.SerializeToString()
    return data


# --- Answers


def decode(name: str, data: bytes) -> Any:
    return MESSAGES[name].FromString(data)


def decode_search(data: bytes) -> SearchResults:
    response = decode("SearchResponse", data)
    results = response.results
    found = SearchResults(SearchResult(hit.id, hit.score, _payload_of(hit), None, hit.rerank_score)
                          for hit in results)
    found.shards_total = response.shards_total
    found.shards_answered = response.shards_answered
    found.staleness_ms = response.staleness_ms
    if any(hit.vector for hit in results):
        blocks = [value for number, value in _fields(memoryview(data)) if number == 1]
        for result, block in zip(found, blocks, strict=False):
            result.vector = _vector_of(block, 4)
    return found


def decode_point(data: bytes) -> Point:
    message = decode("GetResponse", data).point
    block = next(value for number, value in _fields(memoryview(data)) if number == 1)
    return Point(message.id, _vector_of(block, 2), _payload_of(message))


def decode_status(data: bytes) -> CollectionStatus:
    status = decode("GetCollectionStatusResponse", data)
    return CollectionStatus(status.name, status.dimension, status.distance, [
        ShardStatus(shard.shard_id, list(shard.replicas), shard.leader_id, shard.ready)
        for shard in status.shards])


# --- What both clients do before and between calls


def token_of(token: str | None) -> str:
    token = token or os.environ.get("VECTRON_TOKEN", "")
    if not token:
        raise ValueError("an SDK token is needed: as an argument or as VECTRON_TOKEN")
    return token


def channel_options(options: ClientOptions) -> list[tuple[str, Any]]:
    return [("grpc.max_send_message_length", MESSAGE_SIZE_MAX),
            ("grpc.max_receive_message_length", MESSAGE_SIZE_MAX),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.use_local_subchannel_pool", 1),
            # Otherwise http_proxy would carry tokens elsewhere, even those for loopback.
            ("grpc.enable_http_proxy", int(options.use_proxy))]


def timeouts(options: ClientOptions, timeout: float | None) -> Callable[[], float]:
    """How long each call of a batch may take that has timeout seconds from now for the whole."""
    end = None if timeout is None else time.monotonic() + timeout

    def left() -> float:
        if end is None:
            return options.timeout
        return min(options.timeout, max(0.0, end - time.monotonic()))

    return left


def compression_of(options: ClientOptions) -> grpc.Compression:
    return grpc.Compression.Gzip if options.gzip else grpc.Compression.NoCompression


def pauses(options: ClientOptions, is_read: bool) -> Iterator[float]:
    """How long to wait before each further attempt: at random, below a bound that doubles up to a limit."""
    attempts = options.retries if is_read or options.retry_writes else 0
    for attempt in range(attempts):
        yield random.uniform(0, min(options.retry_pause * 2.0**attempt, RETRY_PAUSE_MAX))


def is_worth_retrying(code: grpc.StatusCode) -> bool:
    return code == grpc.StatusCode.UNAVAILABLE
