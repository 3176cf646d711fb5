#!/usr/bin/env python3
"""What each client costs beside the same requests sent by curl and h2load: see bench/README.md.

    bench/clients.py [--rounds N] [--results FILE]

One `vectron dev`; in each round every program stores 20,000 points of 100 dimensions (requests of 256) in a
new collection, and sends 10,000 searches (1,000 queries, ten times) one after the other to one collection.
Medians over the rounds, which are interleaved.
"""
import argparse
import json
import pathlib
import re
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "clientlibs/python")]
from support.cluster import Dev  # noqa: E402 # needs the path above
from vectron_client import VectronClient, _wire, points_from_arrays  # noqa: E402

POINTS, DIMENSION, QUERIES, SEARCHES, BATCH = 20_000, 100, 1_000, 10_000, 256
SERVICE = "vectron.v1.VectronService"


class Bench:
    def __init__(self, dev, folder):
        self.dev = dev
        self.folder = folder
        self.token = dev.user()[1]
        self.client = VectronClient(dev.grpc_address, self.token)
        random = numpy.random.default_rng(1)
        self.rows = random.standard_normal((POINTS, DIMENSION)).astype("<f4")
        self.queries = random.standard_normal((QUERIES, DIMENSION)).astype("<f4")
        self.rows.tofile(folder / "ingest")
        self.queries.tofile(folder / "search")
        self.go = folder / "go"
        subprocess.run(["go", "build", "-o", self.go, "."], cwd=ROOT / "bench/clients", check=True)
        self.new_collection("searched")
        self.client.upsert_batch("searched", points_from_arrays((f"p{i}" for i in range(POINTS)), self.rows))
        self.settle()

    def new_collection(self, name):
        self.client.create_collection(name, DIMENSION, "euclidean")

    def settle(self):
        """Until the server has built what it builds between writes."""
        idle = 0
        while idle < 5:
            before = self.dev.process.cpu_seconds()
            time.sleep(0.2)
            idle = idle + 1 if self.dev.process.cpu_seconds() - before < 0.02 else 0

    def run(self, command, phase, collection, concurrency):
        """A client's program: {"seconds", "cpu"}."""
        arguments = [self.dev.grpc_address, self.token, phase, collection, self.folder / phase, DIMENSION,
                     SEARCHES, concurrency]
        out = subprocess.run([*map(str, command), *map(str, arguments)], check=True, capture_output=True,
                             text=True).stdout
        return json.loads(out)

    def bodies(self, phase):
        """The requests as JSON."""
        if phase == "search":
            return [json.dumps({"vector": query.tolist(), "top_k": 10}) for query in self.queries]
        return [json.dumps({"points": [{"id": f"p{start + i}", "vector": row.tolist()}
                                       for i, row in enumerate(self.rows[start:start + BATCH])]})
                for start in range(0, POINTS, BATCH)]

    def curl(self, phase, collection, concurrency):
        """The same requests as HTTP/1.1 and JSON, made before, on one connection, one after the other."""
        path = "points/search" if phase == "search" else "points"
        files = []
        for i, body in enumerate(self.bodies(phase)):
            files.append(self.folder / f"body{i}")
            files[-1].write_text(body)
        times = SEARCHES // QUERIES if phase == "search" else 1
        one = (f'url = "http://{self.dev.http_address}/v1/collections/{collection}/{path}"\nsilent\nfail\n'
               'header = "content-type: application/json"\noutput = "/dev/null"\n'
               f'header = "authorization: Bearer {self.token}"\ndata-binary = "@')
        config = self.folder / "config"
        config.write_text("next\n".join(f'{one}{file}"\n' for file in files * times))
        return self.timed(["curl", "-q", "-K", config])[0]

    @staticmethod
    def timed(command):
        """({"seconds", "cpu"}, what it printed)"""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"seconds": seconds,
                "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}, out

    def h2load(self, phase, collection, concurrency):
        """One query 10,000 times as gRPC, one after the other: what the server and the wire take."""
        if phase != "search":
            return None
        body = _wire.encode_search(collection, self.queries[0], top_k=10, include_metadata=True)
        file = self.folder / "one"
        file.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
        found, out = self.timed(
            ["h2load", "-c", "1", "-m", "1", "-n", str(SEARCHES), "-d", file, "-H",
             "content-type: application/grpc", "-H", "te: trailers", "-H",
             f"authorization: Bearer {self.token}",
             f"http://{self.dev.grpc_address}/{SERVICE}/Search"])
        assert re.search(rf"{SEARCHES} succeeded", out), out
        return found


def programs(bench):
    python = ["/usr/bin/python3", ROOT / "bench/clients/client.py"]
    commands = {
        "Go": [bench.go],
        "Python": [*python, "sync", ROOT / "clientlibs/python"],
        "Python, asyncio": [*python, "asyncio", ROOT / "clientlibs/python"],
        "JavaScript": ["node", ROOT / "bench/clients/client.mjs"],
    }
    found = {"h2load, one query": bench.h2load, "curl, HTTP/JSON": bench.curl}
    for name, command in commands.items():
        found[name] = lambda *rest, command=command: bench.run(command, *rest)
    return found


def measure(bench, rounds):
    """{(program, phase, concurrency): [{"seconds", "cpu"}, …]}"""
    results = {}
    number = 0
    for _ in range(rounds):
        for phase, concurrency in (("ingest", 1), ("ingest", 4), ("search", 1)):
            for name, program in programs(bench).items():
                if concurrency > 1 and name in ("curl, HTTP/JSON", "h2load, one query"):
                    continue
                collection = "searched"
                if phase == "ingest":
                    number += 1
                    collection = f"c{number}"
                    bench.new_collection(collection)
                one = program(phase, collection, concurrency)
                if one is not None:
                    results.setdefault((name, phase, concurrency), []).append(one)
                if phase == "ingest":
                    bench.client.delete_collection(collection)
                bench.settle()
    return results


def table(results):
    names = list(dict.fromkeys(name for name, _, _ in results))

    def cell(name, phase, concurrency, what, scale):
        found = results.get((name, phase, concurrency))
        return f"{statistics.median(one[what] for one in found) * scale:,.2f}" if found else ""

    lines = ["| program | ingest, s | 4 requests under way, s | client's CPU, µs a point | search, µs | "
             "client's CPU, µs a search |", "|---|---|---|---|---|---|"]
    for name in names:
        lines.append("| " + " | ".join([
            name, cell(name, "ingest", 1, "seconds", 1), cell(name, "ingest", 4, "seconds", 1),
            cell(name, "ingest", 1, "cpu", 1e6 / POINTS), cell(name, "search", 1, "seconds", 1e6 / SEARCHES),
            cell(name, "search", 1, "cpu", 1e6 / SEARCHES)]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        dev = Dev(folder).start()
        try:
            text = table(measure(Bench(dev, folder), arguments.rounds))
        finally:
            dev.stop()
    print(text)
    if arguments.results:
        arguments.results.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
