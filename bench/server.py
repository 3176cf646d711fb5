#!/usr/bin/env python3
"""What the server costs around the search itself: see bench/README.md.

    bench/server.py [--words FOLDER] [--rounds N] [--only calls|load|idle|search]
"""
import argparse
import pathlib
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support import api  # noqa: E402 # needs the path above
from support.cluster import Dev  # noqa: E402
from support.process import Process  # noqa: E402

CONNECTIONS, STREAMS = 8, 10


def h2load(address, path, body, requests, token=None):
    """Run the load; returns (requests that succeeded, requests per second)."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0" + struct.pack(">I", len(body)) + body)
        file.flush()
        command = ["h2load", "-c", str(CONNECTIONS), "-m", str(STREAMS), "-n", str(requests), "-d",
                   file.name, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        if token:
            command += ["-H", f"authorization: Bearer {token}"]
        out = subprocess.run([*command, f"http://{address}{path}"], capture_output=True, text=True,
                             check=True).stdout
    done = int(re.search(r"(\d+) succeeded", out).group(1))
    rate = float(re.search(r"([\d.]+) req/s", out).group(1))
    return done, rate


def cpu_per_call(process, load):
    """Server CPU microseconds per request that succeeded, and the rate."""
    before = process.cpu_seconds()
    done, rate = load()
    return (process.cpu_seconds() - before) / done * 1e6, rate


def measure_calls(dev, rounds):
    """Ours answers a search over ten points; the peer answers the same bytes, a constant."""
    _, token = dev.user()
    client = dev.grpc(token)
    client.CreateCollection(name="ten", dimension=100, distance="cosine")
    random = numpy.random.default_rng(1)
    client.Upsert(collection="ten", points=[
        api.vectron.Point(id=f"doc-{i:08}", vector=random.standard_normal(100)) for i in range(10)])
    request = api.vectron.SearchRequest(collection="ten", vector=random.standard_normal(100),
                                        top_k=10)
    answer = client.Search(request)
    peer = Process("", [])
    peer.command = ["/usr/bin/python3", str(ROOT / "bench/peer_server.py"),
                    answer.SerializeToString().hex()]
    peer.start()
    port = peer.wait_line("")
    path = "/vectron.v1.VectronService/Search"
    body = request.SerializeToString()
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(cpu_per_call(dev.process, lambda: h2load(dev.grpc_address, path, body, 100_000,
                                                             token)))
        theirs.append(cpu_per_call(peer, lambda: h2load(f"127.0.0.1:{port}", path, body, 20_000)))
    peer.kill()
    ratio = statistics.median(b[0] / a[0] for a, b in zip(ours, theirs))
    print(f"\none gRPC search over 10 points, {CONNECTIONS} connections x {STREAMS} streams, median of "
          f"{rounds} interleaved rounds\n")
    print("| server | CPU per search, µs | searches/s |\n|---|---|---|")
    for name, figures in (("vectron dev, whole path", ours),
                          ("grpcio server, constant answer", theirs)):
        print(f"| {name} | {statistics.median(f[0] for f in figures):.1f} "
              f"| {statistics.median(f[1] for f in figures):,.0f} |")
    print(f"\npeer / ours, CPU: {ratio:.1f}")


def load_words(dev, folder):
    """All words through one connection in batches of 256; returns (client, token, vectors, seconds)."""
    _, token = dev.user()
    client = dev.grpc(token)
    vectors = numpy.load(folder / "words.npy")
    names = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
    client.CreateCollection(name="words", dimension=vectors.shape[1], distance="cosine")
    batches = [api.vectron.UpsertRequest(collection="words", points=[
        api.vectron.Point(id=names[i], vector=vectors[i])
        for i in range(start, min(start + 256, len(vectors)))])
        for start in range(0, len(vectors), 256)]
    started = time.monotonic()
    for batch in batches:
        client.Upsert(batch)
    return client, token, vectors, time.monotonic() - started


def measure_load(dev, folder):
    before = dev.process.cpu_seconds()
    _, _, vectors, seconds = load_words(dev, folder)
    cpu = dev.process.cpu_seconds() - before
    print(f"\n{len(vectors)} points x {vectors.shape[1]} in batches of 256, each synced, one "
          f"connection: {seconds:.2f} s, {len(vectors) / seconds:,.0f} points/s, "
          f"{cpu / len(vectors) * 1e6:.1f} µs CPU a point")


def measure_search(dev, folder):
    _, token, vectors, _ = load_words(dev, folder)
    body = api.vectron.SearchRequest(collection="words", vector=vectors[17], top_k=10)
    cpu, rate = cpu_per_call(dev.process, lambda: h2load(
        dev.grpc_address, "/vectron.v1.VectronService/Search", body.SerializeToString(),
        2_000_000_000 // vectors.size + 80, token))
    print(f"\nexact search over {len(vectors)} x {vectors.shape[1]}: {cpu:.0f} µs CPU, {rate:,.0f}/s, "
          f"{dev.process.resident_bytes() / 1e6:.0f} MB resident")


def measure_idle(folder):
    starts = []
    for i in range(5):
        data = folder / f"idle{i // 4}"  # the first four times the same folder
        data.mkdir(exist_ok=True)
        dev = Dev(data)
        started = time.monotonic()
        dev.process.start()
        dev.process.ready()
        starts.append(time.monotonic() - started)
        if i < 4:
            dev.stop()
    time.sleep(2)
    before = dev.process.cpu_seconds()
    time.sleep(10)
    print(f"\nidle vectron dev: ready in {statistics.median(starts[1:4]) * 1000:.0f} ms (first start "
          f"{starts[0] * 1000:.0f} ms), {dev.process.resident_bytes() / 1e6:.1f} MB resident, "
          f"{(dev.process.cpu_seconds() - before) / 10 * 100:.2f} % of a core")
    dev.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=pathlib.Path, default=ROOT / "data/words")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["calls", "load", "idle", "search"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        if arguments.only in (None, "idle"):
            measure_idle(folder)
        dev = Dev(folder).start()
        try:
            if arguments.only in (None, "calls"):
                measure_calls(dev, arguments.rounds)
            if arguments.only in (None, "load"):
                measure_load(dev, arguments.words)
            if arguments.only in (None, "search"):
                measure_search(dev, arguments.words)
        finally:
            dev.stop()


if __name__ == "__main__":
    main()
