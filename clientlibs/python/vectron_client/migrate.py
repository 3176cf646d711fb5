"""Points from a Parquet file into a collection, and back.

    python -m vectron_client.migrate import words words.parquet
    python -m vectron_client.migrate export words words.parquet --ids ids.txt

Needs pyarrow (`pip install vectron-client[parquet]`). A row that makes no point, or that the server refuses,
is written to FILE.refused with its number and the reason, and the rest is stored. FILE.import says how far an
import has come: the same command goes on there. The exit code is 0 only when every row was stored.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TextIO, TypeVar

import numpy

from ._client import VectronClient
from .errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError, VectronError
from .types import ClientOptions, Point

TOP_K_MAX = 10_000
EXPORT_ROWS = 1024  # of a row group
PATIENCE = 30.0  # seconds

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """While the server says that a limit is reached, wait and ask again, for half a minute."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except ResourceExhaustedError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


class Refused(Exception):
    """A row makes no point."""


@dataclass
class State:
    """How far an import has come. source tells whether the file is the same."""

    collection: str
    source: str
    row: int = 0
    stored: int = 0
    refused: int = 0
    report_size: int = 0


def _fingerprint(path: pathlib.Path) -> str:
    crc = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
            size += len(block)
    return f"{size}-{crc:08x}"


# --- Rows to points


def _json_value(value: Any) -> bool:
    if value is None or isinstance(value, (str, bool, int)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_json_value, value))
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _json_value(item) for name, item in value.items())


def _payload_of(row: dict[str, Any], skipped: set[str]) -> dict[str, Any]:
    """The column `payload`, as text or as a struct; else the other columns."""
    if "payload" in row:
        payload = row["payload"]
        if isinstance(payload, str):
            try:
                payload = json.loads(payload)
            except ValueError as error:
                raise Refused(f"payload: {error}") from None
        if payload is None:
            return {}
        if not isinstance(payload, dict):
            raise Refused("payload: no JSON object")
    else:
        payload = {name: value for name, value in row.items() if name not in skipped}
    for name, value in payload.items():
        if not _json_value(value):
            raise Refused(f"payload: {name} is a {type(value).__name__}, which JSON has not")
    return payload


def point_of(row: dict[str, Any], id_column: str, vector_column: str, dimension: int) -> Point:
    """Refused: with the reason."""
    name = row[id_column]
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name:
        raise Refused("id: missing or empty")
    if not isinstance(row[vector_column], list):
        raise Refused("vector: missing")
    try:
        with numpy.errstate(over="ignore"):
            vector = numpy.asarray(row[vector_column], dtype="f4")
    except (TypeError, ValueError):
        raise Refused("vector: not only numbers") from None
    if vector.shape != (dimension,):
        raise Refused(f"vector: {vector.size} values, and the collection's dimension is {dimension}")
    if not numpy.isfinite(vector).all():
        raise Refused(f"vector: value {int(numpy.argmin(numpy.isfinite(vector)))} is not finite")
    return Point(name, vector, _payload_of(row, {id_column, vector_column}))


# --- Import


class Import:
    def __init__(self, client: VectronClient, arguments: argparse.Namespace) -> None:
        self.client = client
        self.arguments = arguments
        self.path = pathlib.Path(arguments.file)
        self.state_path = self.path.with_name(self.path.name + ".import")
        self.report_path = self.path.with_name(self.path.name + ".refused")
        self.refusals: list[tuple[int, str]] = []
        self.state = State(arguments.collection, _fingerprint(self.path))

    def load_state(self) -> None:
        if self.arguments.restart or not self.state_path.exists():
            return
        try:
            found = State(**json.loads(self.state_path.read_text(encoding="utf-8")))
        except (TypeError, ValueError):
            raise SystemExit(f"{self.state_path} is not the state of an import; --restart begins anew") \
                from None
        if (found.collection, found.source) != (self.state.collection, self.state.source):
            raise SystemExit(f"{self.state_path} is of another collection, or the file has changed since; "
                             "--restart begins anew")
        self.state = found

    def save(self, report: TextIO) -> None:
        for number, reason in sorted(self.refusals):
            report.write(f"row {number}: {' '.join(reason.split())}\n")
        report.flush()
        self.state.refused += len(self.refusals)
        self.state.report_size = report.tell()
        self.refusals.clear()
        fresh = self.state_path.with_name(self.state_path.name + ".new")
        fresh.write_text(json.dumps(asdict(self.state)), encoding="utf-8")
        os.replace(fresh, self.state_path)

    def send(self, points: list[tuple[int, Point]]) -> None:
        """All but those that the server refuses: a request that it refuses is halved."""
        start, size = 0, len(points)
        while start < len(points):
            size = min(size, len(points) - start)
            try:
                batch = [point for _, point in points[start:start + size]]
                patiently(partial(self.client.upsert, self.arguments.collection, batch))
            except InvalidArgumentError as error:
                if size > 1:
                    size //= 2
                    continue
                self.refusals.append((points[start][0], error.message))
                start += 1
                continue
            self.state.stored += size
            start += size
            size *= 2

    def rows(self, file: Any) -> Iterator[list[dict[str, Any]]]:
        """In the order of the file, from where the state is."""
        skipped = self.state.row
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if skipped >= count:
                skipped -= count
                continue
            for batch in file.iter_batches(self.arguments.batch, row_groups=[group]):
                rows = batch.slice(min(skipped, batch.num_rows)).to_pylist()
                skipped -= min(skipped, batch.num_rows)
                if rows:
                    yield rows

    def run(self) -> int:
        import pyarrow.parquet

        arguments = self.arguments
        dimension = self.client.get_collection_status(arguments.collection).dimension
        self.load_state()
        with pyarrow.parquet.ParquetFile(self.path) as file, \
                self.report_path.open("a+", encoding="utf-8", newline="\n") as report:
            report.truncate(self.state.report_size)
            report.seek(0, os.SEEK_END)
            for column in (arguments.id_column, arguments.vector_column):
                if column not in file.schema_arrow.names:
                    raise SystemExit(f"{self.path} has no column {column}")
            progress = Progress("import", file.metadata.num_rows)
            for rows in self.rows(file):
                points = []
                for number, row in enumerate(rows, self.state.row):
                    try:
                        points.append((number, point_of(row, arguments.id_column,
                                                        arguments.vector_column, dimension)))
                    except Refused as reason:
                        self.refusals.append((number, str(reason)))
                self.send(points)
                self.state.row += len(rows)
                self.save(report)
                progress.show(self.state.row)
            progress.end()
        return self.finish()

    def finish(self) -> int:
        self.state_path.unlink(missing_ok=True)  # left behind, it says that all is done
        print(f"{self.state.stored} points stored in {self.arguments.collection}, "
              f"{self.state.refused} rows refused")
        if self.state.refused == 0:
            self.report_path.unlink(missing_ok=True)
            return 0
        print(f"{self.state.refused} rows were refused; {self.report_path} says which and why",
              file=sys.stderr)
        return 1


# --- Export


def _ids(client: VectronClient, arguments: argparse.Namespace, dimension: int) -> list[str]:
    if arguments.ids:
        text = pathlib.Path(arguments.ids).read_text(encoding="utf-8")
        return [name for name in text.split("\n") if name]
    query = numpy.zeros(dimension, dtype="f4")
    query[0] = 1
    hits = client.search(arguments.collection, query, TOP_K_MAX, exact=True, include_payload=False)
    if len(hits) >= TOP_K_MAX:
        raise SystemExit(f"the collection has {TOP_K_MAX} points or more; name them with --ids")
    return [hit.id for hit in hits]


def run_export(client: VectronClient, arguments: argparse.Namespace) -> int:
    import pyarrow
    import pyarrow.parquet

    dimension = client.get_collection_status(arguments.collection).dimension
    ids = _ids(client, arguments, dimension)
    schema = pyarrow.schema([("id", pyarrow.string()),
                             ("vector", pyarrow.list_(pyarrow.float32(), dimension)),
                             ("payload", pyarrow.string())])
    path = pathlib.Path(arguments.file)
    fresh = path.with_name(path.name + ".new")
    progress = Progress("export", len(ids))
    missing = 0
    try:
        with pyarrow.parquet.ParquetWriter(fresh, schema) as writer:
            for start in range(0, len(ids), EXPORT_ROWS):
                points = []
                for name in ids[start:start + EXPORT_ROWS]:
                    try:
                        points.append(patiently(partial(client.get, arguments.collection, name)))
                    except NotFoundError:
                        missing += 1
                values = numpy.concatenate([numpy.asarray(point.vector) for point in points]) \
                    if points else numpy.zeros(0, dtype="f4")
                writer.write_table(pyarrow.Table.from_arrays([
                    pyarrow.array([point.id for point in points], pyarrow.string()),
                    pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values, pyarrow.float32()),
                                                           dimension),
                    pyarrow.array([json.dumps(point.payload, ensure_ascii=False)
                                   for point in points], pyarrow.string())], schema=schema))
                progress.show(start + len(points))
        os.replace(fresh, path)  # it appears when it is whole
    finally:
        fresh.unlink(missing_ok=True)
    progress.end()
    print(f"{len(ids) - missing} points of {arguments.collection} exported to {path}")
    if missing:
        print(f"{missing} ids are not in the collection", file=sys.stderr)
    return 1 if missing else 0


class Progress:
    """A line on a terminal."""

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.is_on = sys.stderr.isatty()

    def show(self, done: int) -> None:
        if self.is_on:
            print(f"\r{self.what} {done}/{self.total} ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.is_on:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vectron_client.migrate",
                                     description="Points from a Parquet file and back.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("import", "export"):
        one = verbs.add_parser(verb)
        one.add_argument("collection")
        one.add_argument("file")
        one.add_argument("--addr", default=os.environ.get("VECTRON_ADDR", "127.0.0.1:8081"))
        one.add_argument("--token", help="an SDK token; else VECTRON_TOKEN")
        one.add_argument("--tls", action="store_true")
        if verb == "import":
            one.add_argument("--id-column", default="id")
            one.add_argument("--vector-column", default="vector")
            one.add_argument("--batch", type=int, default=256, help="points of a request")
            one.add_argument("--restart", action="store_true",
                             help="from the beginning, whatever was done before")
        else:
            one.add_argument("--ids", help="a file with the ids, one a line; needed for more than 10,000")
    arguments = parser.parse_args(words)
    # For half a minute and more; an upsert that is done twice does no harm.
    options = ClientOptions(timeout=60, retries=30, retry_writes=True, tls=arguments.tls)
    try:
        with VectronClient(arguments.addr, arguments.token, options) as client:
            if arguments.verb == "export":
                return run_export(client, arguments)
            return Import(client, arguments).run()
    except (VectronError, OSError, ValueError) as error:
        print(f"{arguments.verb}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
