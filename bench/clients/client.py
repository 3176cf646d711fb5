"""One phase by the Python client; see bench/clients.py. Prints {"seconds", "cpu"}."""
import asyncio
import json
import sys
import time

import numpy

kind, client_folder, host, token, phase, collection, file, dimension, count, concurrency = sys.argv[1:]
sys.path.insert(0, client_folder)
import vectron_client as vc  # noqa: E402 # needs the path above

rows = numpy.fromfile(file, "<f4").reshape(-1, int(dimension))
count, concurrency = int(count), int(concurrency)
names = [f"p{i}" for i in range(len(rows))]
options = vc.ClientOptions(timeout=120)


def report(started):
    seconds, cpu = (now - then for now, then in zip((time.monotonic(), time.process_time()), started))
    print(json.dumps({"seconds": seconds, "cpu": cpu}))


def run():
    with vc.VectronClient(host, token, options) as client:
        client.list_collections()
        started = time.monotonic(), time.process_time()
        if phase == "ingest":
            client.upsert_batch(collection, vc.points_from_arrays(names, rows), concurrency=concurrency)
        for i in range(count if phase == "search" else 0):
            assert len(client.search(collection, rows[i % len(rows)], 10)) == 10
        report(started)


async def run_asyncio():
    async with vc.AsyncVectronClient(host, token, options) as client:
        await client.list_collections()
        started = time.monotonic(), time.process_time()
        if phase == "ingest":
            await client.upsert_batch(collection, vc.points_from_arrays(names, rows), concurrency=concurrency)
        for i in range(count if phase == "search" else 0):
            assert len(await client.search(collection, rows[i % len(rows)], 10)) == 10
        report(started)


if kind == "asyncio":
    asyncio.run(run_asyncio())
else:
    run()
