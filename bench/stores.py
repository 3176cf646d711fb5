#!/usr/bin/env python3
"""The server beside public vector stores: see bench/README.md.

    bench/stores.py [--points N] [--queries N] [--core N] [--only A,B] [--results FILE]
    bench/stores.py load|search STORE FOLDER …      what it starts for each store

Word vectors with a payload are loaded over one connection, each batch acknowledged; the store is
ended and started again; then one query after the other. Servers are on one processor, their client
is not counted; what has no server is on that processor together with its Python.
"""
import argparse
import concurrent.futures
import importlib
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

import numpy

import common
import data
import index

K, BATCH, PASSES, AT_ONCE = data.K, 256, 3, 8
PASS_SECONDS = 10  # as many queries as fit, 100 at least
SET = "glove"
EFFORTS = [16, 32, 64, 128, 256, 512]


def pinned(core):
    return lambda: os.sched_setaffinity(0, {core})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Store:
    """Ids are row numbers as text. Between load and search the process ends."""
    package = module = ""
    note = ""
    knobs = EFFORTS
    pid = "self"  # who serves
    is_server = False

    def __init__(self, folder, core, dimension):
        self.folder, self.core, self.dimension = folder, core, dimension

    def open(self, is_new):
        """Start or open it; is_new: and make the collection."""
        raise NotImplementedError

    def put(self, ids, vectors, payloads):
        raise NotImplementedError

    def finish(self):
        """Return when all is durable and indexed."""

    def reopen(self):
        """What an opened collection needs before it answers."""
        self.tune(self.knobs[0])

    def settle(self):
        """After the first answer: return when it is as fast as it will be."""

    def tune(self, knob):
        self.knob = knob

    def search(self, vector):
        """Row numbers as text or int, the nearest first."""
        raise NotImplementedError

    def close(self):
        pass

    def cpu_seconds(self):
        """User and system time; of a server by its scheduler's count of its threads."""
        if self.pid == "self":
            return time.process_time()
        return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
                   for thread in pathlib.Path(f"/proc/{self.pid}/task").iterdir())

    def resident_bytes(self):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s*(\d+)", text).group(1)) * 1024


class Vectron(Store):
    note = "`vectron dev` over gRPC, every batch synced"
    is_server = True
    knobs = [*EFFORTS, 1024, "exact"]

    def open(self, is_new):
        os.environ["VECTRON_BIN"] = str(common.ROOT / "build/release/bin")
        sys.path.insert(0, str(common.ROOT / "tests"))
        from support import api, cluster
        self.api = api.vectron
        self.dev = cluster.Dev(self.folder)
        self.dev.start()
        self.pid = self.dev.process.pid
        os.sched_setaffinity(self.pid, {self.core})
        for thread in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {self.core})
        token = self.folder / "token"
        if is_new:
            token.write_text(self.dev.user()[1], encoding="ascii")
        self.client = self.dev.grpc(token.read_text(encoding="ascii"))
        if is_new:
            self.client.CreateCollection(name=SET, dimension=self.dimension, distance="cosine")

    def finish(self):
        """Points show at once; the graph is done when the server has nothing left to do."""
        self.settle()

    def settle(self):
        spent = self.cpu_seconds()
        while True:
            time.sleep(0.25)
            now = self.cpu_seconds()
            if now - spent < 0.01:
                return
            spent = now

    def put(self, ids, vectors, payloads):
        self.client.Upsert(collection=SET, points=[
            self.api.Point(id=id_, vector=vector, payload=payload)
            for id_, vector, payload in zip(ids, vectors, payloads)], timeout=120)

    def search(self, vector):
        more = {"exact": True} if self.knob == "exact" else {"ef": self.knob}
        answer = self.client.Search(collection=SET, vector=vector, top_k=K, **more)
        return [result.id for result in answer.results]

    def close(self):
        self.dev.stop()


class Server(Store):
    """A program that listens on a port of ours."""
    is_server = True

    def command(self, port):
        raise NotImplementedError

    def connect(self, port):
        raise NotImplementedError

    def open(self, is_new):
        port = free_port()
        self.process = subprocess.Popen(
            self.command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=pinned(self.core), env={**os.environ, "ANONYMIZED_TELEMETRY": "False"})
        self.pid = self.process.pid
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{self.command(port)} does not listen")
                time.sleep(0.005)
        self.connect(port)
        if is_new:
            self.create()

    def create(self):
        raise NotImplementedError

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Chroma(Server):
    package, module = "chromadb", "chromadb"
    note = "`chroma run` over HTTP, HNSW M 16, 200"

    def command(self, port):
        return [pathlib.Path(sys.executable).parent / "chroma", "run", "--path", self.folder / "data",
                "--host", "127.0.0.1", "--port", str(port)]

    def connect(self, port):
        import chromadb
        self.client = chromadb.HttpClient(
            "127.0.0.1", port, settings=chromadb.Settings(anonymized_telemetry=False))
        self.collection = None

    def create(self):
        self.collection = self.client.create_collection(
            SET, embedding_function=None,
            configuration={"hnsw": {"space": "cosine", "ef_construction": 200, "max_neighbors": 16}})

    def put(self, ids, vectors, payloads):
        self.collection.upsert(ids=ids, embeddings=vectors, metadatas=payloads)

    def reopen(self):
        self.collection = self.client.get_collection(SET, embedding_function=None)

    def tune(self, knob):
        self.collection.modify(configuration={"hnsw": {"ef_search": knob}})
        self.close()  # what is in memory keeps the old value
        self.open(False)
        self.collection = self.client.get_collection(SET, embedding_function=None)

    def search(self, vector):
        return self.collection.query(query_embeddings=[vector], n_results=K, include=["distances"])[
            "ids"][0]


class Milvus(Server):
    package, module = "milvus-lite", "pymilvus"
    note = "`milvus-lite server` over gRPC, HNSW M 16, 200"

    def command(self, port):
        return [pathlib.Path(sys.executable).parent / "milvus-lite", "server", "--data-dir",
                self.folder / "data", "--host", "127.0.0.1", "--port", str(port)]

    def connect(self, port):
        import pymilvus
        self.client = pymilvus.MilvusClient(f"http://127.0.0.1:{port}")

    def create(self):
        from pymilvus import DataType
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="COSINE",
                        params={"M": 16, "efConstruction": 200})
        self.client.create_collection(SET, schema=schema, index_params=index)

    def put(self, ids, vectors, payloads):
        self.client.upsert(SET, [{"id": id_, "vector": vector, **payload}
                                 for id_, vector, payload in zip(ids, vectors, payloads)])

    def finish(self):
        self.client.flush(SET)
        self.client.load_collection(SET)
        self.search_once()

    def search_once(self):
        self.tune(EFFORTS[0])
        self.search([1.0] * self.dimension)

    def tune(self, knob):
        super().tune(knob)
        self.client.load_collection(SET)

    def search(self, vector):
        found = self.client.search(SET, data=[vector], limit=K, anns_field="vector",
                                   search_params={"metric_type": "COSINE", "params": {"ef": self.knob}})
        return [hit["id"] for hit in found[0]]


class QdrantEdge(Store):
    package, module = "qdrant-edge-py", "qdrant_edge"
    note = "embedded, HNSW M 16, 200"
    quantization = None

    def open(self, is_new):
        import qdrant_edge as q
        self.q = q
        path = self.folder / "data"
        if is_new:
            path.mkdir()
            self.shard = q.EdgeShard.create(str(path), q.EdgeConfig(
                vectors=q.EdgeVectorParams(self.dimension, q.Distance.Cosine),
                hnsw_config=q.HnswIndexConfig(16, 200, 10_000),
                optimizers=q.EdgeOptimizersConfig(default_segment_number=1)))
        else:
            self.shard = q.EdgeShard.load(str(path))

    def put(self, ids, vectors, payloads):
        self.shard.update(self.q.UpdateOperation.upsert_points([
            self.q.Point(int(id_), vector, payload)
            for id_, vector, payload in zip(ids, vectors, payloads)]))

    def finish(self):
        self.shard.optimize()
        self.shard.flush()

    def search(self, vector):
        q = self.q
        found = self.shard.search(q.SearchRequest(
            q.Query.Nearest(vector), K, params=q.SearchParams(
                hnsw_ef=self.knob, quantization=self.quantization)))
        return [point.id for point in found]

    def close(self):
        self.shard.close()


class QdrantEdgeInt8(QdrantEdge):
    note = "embedded, HNSW M 16, 200, scalar int8, 3 x k rescored"

    def open(self, is_new):
        super().open(is_new)
        self.quantization = self.q.QuantizationSearchParams(rescore=True, oversampling=3.0)
        if is_new:
            self.shard.close()
            shutil.rmtree(self.folder / "data")
            (self.folder / "data").mkdir()
            q = self.q
            self.shard = q.EdgeShard.create(str(self.folder / "data"), q.EdgeConfig(
                vectors=q.EdgeVectorParams(self.dimension, q.Distance.Cosine),
                quantization_config=q.ScalarQuantizationConfig(q.ScalarType.Int8, always_ram=True),
                hnsw_config=q.HnswIndexConfig(16, 200, 10_000),
                optimizers=q.EdgeOptimizersConfig(default_segment_number=1)))


class Zvec(Store):
    package, module = "zvec", "zvec"
    note = "embedded, HNSW M 16, 200"
    int8 = False

    def open(self, is_new):
        import zvec
        self.zvec = zvec
        zvec.init(query_threads=1, optimize_threads=1)
        path = str(self.folder / "data")
        if not is_new:
            self.collection = zvec.open(path)
            return
        kind = zvec.QuantizeType.INT8 if self.int8 else zvec.QuantizeType.UNDEFINED
        schema = zvec.CollectionSchema(
            name=SET,
            fields=[zvec.FieldSchema("title", zvec.DataType.STRING),
                    zvec.FieldSchema("group", zvec.DataType.STRING)],
            vectors=zvec.VectorSchema(
                "vector", zvec.DataType.VECTOR_FP32, self.dimension,
                zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE, m=16, ef_construction=200,
                                    quantize_type=kind, use_contiguous_memory=True)))
        self.collection = zvec.create_and_open(path, schema)

    def put(self, ids, vectors, payloads):
        for status in self.collection.upsert([
                self.zvec.Doc(id=id_, vectors={"vector": vector}, fields=payload)
                for id_, vector, payload in zip(ids, vectors, payloads)]):
            assert status.ok(), status

    def finish(self):
        self.collection.optimize()
        self.collection.flush()

    def search(self, vector):
        parameter = self.zvec.HnswQueryParam(ef=self.knob, is_using_refiner=self.int8)
        found = self.collection.query(
            self.zvec.Query(field_name="vector", vector=vector, param=parameter), topk=K,
            output_fields=[])
        return [doc.id for doc in found]


class ZvecInt8(Zvec):
    note = "embedded, HNSW M 16, 200, int8, refined by the floats"
    int8 = True


class Lance(Store):
    package, module = "lancedb", "lancedb"
    note = "embedded, IVF_HNSW_SQ of one partition, M 16, 200, 5 x k refined by the floats"

    def open(self, is_new):
        import lancedb
        import pyarrow
        self.database = lancedb.connect(str(self.folder / "data"))
        self.schema = pyarrow.schema([
            ("id", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32(), self.dimension)),
            ("title", pyarrow.string()), ("group", pyarrow.string())])
        self.table = (self.database.create_table(SET, schema=self.schema) if is_new
                      else self.database.open_table(SET))

    def put(self, ids, vectors, payloads):
        self.table.add([{"id": id_, "vector": vector, **payload}
                        for id_, vector, payload in zip(ids, vectors, payloads)])

    def finish(self):
        self.table.optimize()
        self.table.create_index(metric="cosine", vector_column_name="vector",
                                index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=200)
        self.table.wait_for_index(["vector_idx"])

    def search(self, vector):
        found = (self.table.search(vector, vector_column_name="vector").distance_type("cosine")
                 .nprobes(1).ef(max(self.knob, 5 * K)).refine_factor(5).limit(K).select(["id"])
                 .to_list())
        return [row["id"] for row in found]


STORES = {
    "vectron": Vectron,
    "zvec": Zvec,
    "zvec int8": ZvecInt8,
    "qdrant edge": QdrantEdge,
    "qdrant edge int8": QdrantEdgeInt8,
    "lancedb": Lance,
    "milvus lite": Milvus,
    "chroma": Chroma,
}


# --- One store


def payload(row):
    return {"title": f"the word of row {row}", "group": f"g{row % 100}"}


def do_load(store, base):
    store.open(True)
    cpu, wall = store.cpu_seconds(), time.monotonic()
    for start in range(0, len(base), BATCH):
        rows = range(start, min(start + BATCH, len(base)))
        store.put([str(row) for row in rows], base[start:rows.stop].tolist(), [payload(r) for r in rows])
    store.finish()
    done = {"load_s": time.monotonic() - wall, "load_cpu_s": store.cpu_seconds() - cpu}
    store.close()
    return done


def cost_of(store, action, count):
    """(median milliseconds of processor time for each of count, the last answer)"""
    costs = []
    for _ in range(PASSES):
        cpu = store.cpu_seconds()
        answer = action()
        costs.append((store.cpu_seconds() - cpu) / count * 1000)
    return statistics.median(costs), answer


def do_search(store, queries, truth):
    all_vectors = queries.tolist()
    del queries
    if store.module:
        importlib.import_module(store.module)  # not part of a restart
    before = 0 if store.is_server else store.resident_bytes()
    started = time.monotonic()
    store.open(False)
    store.reopen()
    store.search(all_vectors[0])
    first = time.monotonic() - started
    store.settle()
    points = []
    for knob in store.knobs:
        store.tune(knob)
        started = time.monotonic()
        for vector in all_vectors[:50]:
            store.search(vector)
        fitting = int(PASS_SECONDS * 50 / (time.monotonic() - started))
        vectors = all_vectors[:max(100, fitting)]
        one, found = cost_of(store, lambda: [store.search(vector) for vector in vectors], len(vectors))
        many = None
        if store.is_server:
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                many, _ = cost_of(store, lambda: list(pool.map(store.search, vectors)), len(vectors))
        hits = sum(len({int(id_) for id_ in ids} & set(rows)) for ids, rows in
                   zip(found, truth.tolist()))
        points.append({"knob": knob, "recall": hits / (K * len(vectors)), "one": one, "many": many})
    done = {"restart_s": first, "resident_bytes": store.resident_bytes() - before,
            "points": points}
    store.close()
    return done


def child(arguments):
    folder = common.KEPT / "data"
    base = data.read(folder / f"{SET}.base.fbin")[:arguments.points]
    queries = data.read(folder / f"{SET}.query.fbin")[:arguments.queries]
    store = STORES[arguments.store](arguments.folder, arguments.core, base.shape[1])
    if not store.is_server:
        os.sched_setaffinity(0, {arguments.core})
    if arguments.command == "load":
        done = do_load(store, base)
    else:
        del base
        done = do_search(store, queries, data.window_truth(folder, SET, 0, arguments.points,
                                                           arguments.queries))
    print(json.dumps(done))


# --- All of them


def run_store(name, python, arguments):
    folder = (common.KEPT / "stores" / name.replace(" ", "_")).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = {}
    for command in ("load", "search"):
        child_process = subprocess.run(
            [python, __file__, command, name, folder, "--points", str(arguments.points), "--queries",
             str(arguments.queries), "--core", str(arguments.core)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd=folder)
        if child_process.returncode != 0:
            return {"failed": f"{command}: {child_process.stderr.strip().splitlines()[-1]}"}
        done.update(json.loads(child_process.stdout.splitlines()[-1]))
    shutil.rmtree(folder, ignore_errors=True)
    return done


def cost_at(points, recall, how):
    """Milliseconds at that recall, read off the front as index.py reads rates."""
    rate = index.rate_at([{"recall": point["recall"], "qps": 1 / point[how]} for point in points
                          if point[how]], recall)
    return "–" if rate is None else f"{1 / rate:.3f}"


def version_of(python, package):
    if not package:
        return ""
    return subprocess.run([python, "-c", "import importlib.metadata as m, sys; "
                           "print(m.version(sys.argv[1]))", package], check=True,
                          capture_output=True, text=True).stdout.strip()


def describe(results, python, arguments, loads):
    out = [f"# stores.py\n\n{common.machine()}. {arguments.points:,} word vectors x 100 with a payload, "
           f"cosine, {arguments.queries:,} queries, k {K}, one after the other and {AT_ONCE} at once; "
           f"batches of {BATCH}. "
           "Processor time is the server's alone, or the whole process's where the store is embedded "
           f"in Python; medians of {PASSES} passes. Load average {min(loads):.1f} to {max(loads):.1f}.\n",
           "| store | settings | load until durable and searchable, s | its CPU s | memory, MB "
           f"| restart to the first answer, ms | CPU ms a query at 0.95 | at 0.99 | {AT_ONCE} at once: 0.95 "
           "| 0.99 | highest recall |",
           f"|{'---|' * 11}"]
    for name, result in results.items():
        label = f"{name} {version_of(python, STORES[name].package)}".strip()
        if "failed" in result:
            out.append(f"| {label} | {STORES[name].note} | {result['failed']} |{' |' * 8}")
            continue
        costs = [cost_at(result["points"], recall, how) for how in ("one", "many")
                 for recall in (0.95, 0.99)]
        out.append(
            f"| {label} | {STORES[name].note} | {result['load_s']:.1f} | {result['load_cpu_s']:.1f} "
            f"| {result['resident_bytes'] / 1e6:.0f} | {result['restart_s'] * 1000:.0f} | "
            + " | ".join(costs) + f" | {max(point['recall'] for point in result['points']):.4f} |")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs="?", choices=["load", "search"])
    parser.add_argument("store", nargs="?", choices=STORES)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--only", default=",".join(STORES))
    parser.add_argument("--results", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command:
        child(arguments)
        return
    python = common.venv(common.KEPT / "venv-stores", "requirements-stores.txt")
    folder = common.KEPT / "data"
    data.make(folder, SET)
    data.window_truth(folder, SET, 0, arguments.points, arguments.queries)
    results, loads = {}, [os.getloadavg()[0]]
    for name in arguments.only.split(","):
        own = "/usr/bin/python3" if name == "vectron" else python
        results[name] = run_store(name, own, arguments)
        loads.append(os.getloadavg()[0])
        print(name, json.dumps(results[name]), file=sys.stderr)
    text = describe(results, python, arguments, loads)
    print(text)
    if arguments.results:
        arguments.results.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
