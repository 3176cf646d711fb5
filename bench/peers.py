#!/usr/bin/env python3
"""The public indexes that ours is measured beside, one class each, all asked in the same way.

    bench/peers.py list SET
    bench/peers.py build  SET PEER DATA CACHE     build it, keep it under CACHE, say what it cost
    bench/peers.py search SET PEER DATA CACHE [--queries N]

Both print JSON, one object a line. bench/index.py starts this program once for every peer, so that
memory and processor time are that peer's alone. Vectors of a cosine set are normalised before
anyone sees them. Every query is in one call, on one thread: no peer pays for Python per query.
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)  # a kernel for an old library would slow the peers

import numpy  # noqa: E402 # reads the environment above
import data  # noqa: E402

K = data.K
ENOUGH = 0.996  # recall at which a sweep ends
EFFORTS = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280, 1792]


class Peer:
    package = ""
    note = ""
    sets = list(data.COSINE)
    knobs = EFFORTS  # slower and better towards the end

    def __init__(self, dimension, cosine):
        self.dimension = dimension
        self.cosine = cosine

    def build(self, base):
        raise NotImplementedError

    def save(self, folder):
        raise NotImplementedError

    def load(self, folder, base):
        """base is mapped from disk: a peer that keeps no vectors of its own reads them there."""
        raise NotImplementedError

    def prepare(self, queries):
        return queries

    def search(self, queries, knob):
        raise NotImplementedError


class Faiss(Peer):
    package = "faiss-cpu"
    factory = ""
    construction = 0

    def __init__(self, dimension, cosine):
        super().__init__(dimension, cosine)
        import faiss
        self.faiss = faiss
        faiss.omp_set_num_threads(1)

    def build(self, base):
        self.index = self.faiss.index_factory(self.dimension, self.factory.format(
            half=self.dimension // 2), self.faiss.METRIC_L2)
        if self.construction:
            inner = self.faiss.downcast_index(getattr(self.index, "base_index", self.index))
            inner.hnsw.efConstruction = self.construction
        if not self.index.is_trained:
            self.index.train(base[:200_000])
        self.index.add(base)

    def save(self, folder):
        self.faiss.write_index(self.index, str(folder / "index"))

    def load(self, folder, base):
        self.index = self.faiss.read_index(str(folder / "index"))


class FaissHnsw(Faiss):
    factory, construction = "HNSW32,Flat", 200
    note = "M 32, efConstruction 200"

    def search(self, queries, knob):
        return self.index.search(queries, K, params=self.faiss.SearchParametersHNSW(efSearch=knob))[1]


class FaissHnswSq8(Faiss):
    factory, construction = "HNSW32_SQ8,RFlat", 200
    note = "M 32, efConstruction 200, SQ8 codes, best 20 re-ranked by the floats"

    def search(self, queries, knob):
        base = self.faiss.SearchParametersHNSW(efSearch=max(knob, 2 * K))
        return self.index.search(queries, K, params=self.faiss.IndexRefineSearchParameters(
            k_factor=2, base_index_params=base))[1]


class FaissIvf(Faiss):
    factory = "IVF1024,PQ{half}x4fs,RFlat"
    note = "IVF1024, PQ of 2 dimensions x 4 bits, fast scan, re-ranked by the floats"
    knobs = [(probe, factor) for probe in (8, 16, 32, 64, 128, 256) for factor in (4, 8, 15, 30, 60, 120)]

    def search(self, queries, knob):
        base = self.faiss.SearchParametersIVF(nprobe=knob[0])
        return self.index.search(queries, K, params=self.faiss.IndexRefineSearchParameters(
            k_factor=knob[1], base_index_params=base))[1]


class Hnswlib(Peer):
    package = "hnswlib"
    note = "M 16, ef_construction 200"

    def create(self):
        import hnswlib
        return hnswlib.Index(space="ip" if self.cosine else "l2", dim=self.dimension)

    def build(self, base):
        self.index = self.create()
        self.index.init_index(max_elements=len(base), M=16, ef_construction=200)
        self.index.add_items(base, num_threads=1)

    def save(self, folder):
        self.index.save_index(str(folder / "index"))

    def load(self, folder, base):
        self.index = self.create()
        self.index.load_index(str(folder / "index"))

    def search(self, queries, knob):
        self.index.set_ef(knob)
        return self.index.knn_query(queries, k=K, num_threads=1)[0]


class Usearch(Peer):
    package = "usearch"
    note = "connectivity 16, expansion_add 200"
    kind = "f32"

    def create(self):
        from usearch.index import Index
        return Index(ndim=self.dimension, metric="cos" if self.cosine else "l2sq", dtype=self.kind,
                     connectivity=16, expansion_add=200)

    def build(self, base):
        self.index = self.create()
        self.index.add(numpy.arange(len(base), dtype="u8"), base, threads=1)

    def save(self, folder):
        self.index.save(str(folder / "index"))

    def load(self, folder, base):
        self.index = self.create()
        self.index.load(str(folder / "index"))

    def search(self, queries, knob):
        self.index.expansion_search = knob
        return self.index.search(queries, K, threads=1).keys


class UsearchI8(Usearch):
    note = "connectivity 16, expansion_add 200, int8, best 30 re-ranked by the floats"
    kind = "i8"

    def coded(self, vectors):
        """usearch scales what has length 1 by itself; other data comes as int8."""
        if self.cosine:
            return vectors
        return numpy.clip(numpy.rint(vectors * self.scale), -127, 127).astype("i1")

    def build(self, base):
        self.scale = 127 / numpy.abs(base).max()
        super().build(self.coded(base))

    def load(self, folder, base):
        super().load(folder, base)
        self.base = base
        self.scale = 127 / max(numpy.abs(base[i:i + 50_000]).max()
                               for i in range(0, len(base), 50_000))

    def search(self, queries, knob):
        self.index.expansion_search = max(knob, 30)
        found = self.index.search(self.coded(queries), 30, threads=1).keys.astype("i8")
        out = numpy.empty((len(queries), K), "i8")
        for start in range(0, len(queries), 250):  # in pieces that stay in the cache
            rows = found[start:start + 250]
            gap = self.base[rows] - queries[start:start + 250, None, :]
            distance = numpy.einsum("qrd,qrd->qr", gap, gap)
            best = numpy.argpartition(distance, K - 1, axis=1)[:, :K]
            out[start:start + 250] = numpy.take_along_axis(rows, best, axis=1)
        return out


class Svs(Peer):
    """Vamana of scalable-vs; float16 or one of the compressed kinds."""
    package = "scalable-vs"
    note = "R 32, window 200, alpha 1.2"
    primary, residual = 16, 0

    def __init__(self, dimension, cosine):
        super().__init__(dimension, cosine)
        import svs
        self.svs = svs
        svs.logging.set_level(svs.logging.level.critical)

    def build(self, base):
        svs = self.svs
        parameters = svs.VamanaBuildParameters(alpha=1.2, graph_max_degree=32, window_size=200)
        if self.primary == 16:
            self.index = svs.Vamana.build(parameters, base.astype("f2"), svs.DistanceType.L2)
            return
        vectors = pathlib.Path(f"/tmp/svs-{os.getpid()}.fvecs")
        try:
            svs.write_vecs(base, str(vectors))
            loader = svs.VectorDataLoader(str(vectors), svs.DataType.float32, self.dimension)
            self.index = svs.Vamana.build(parameters, self.compressed(loader), svs.DistanceType.L2)
        finally:
            vectors.unlink(missing_ok=True)

    def compressed(self, loader):
        return self.svs.LVQLoader(loader, primary=self.primary, residual=self.residual, padding=32)

    def reload(self, folder):
        return self.svs.LVQLoader(str(folder), padding=32)

    def save(self, folder):
        self.index.save(*(str(folder / part) for part in ("config", "graph", "vectors")))

    def load(self, folder, base):
        svs = self.svs
        loader = (svs.VectorDataLoader(str(folder / "vectors"), svs.DataType.float16)
                  if self.primary == 16 else self.reload(folder / "vectors"))
        self.index = svs.Vamana(str(folder / "config"), svs.GraphLoader(str(folder / "graph")), loader,
                                svs.DistanceType.L2, num_threads=1)

    def prepare(self, queries):
        return queries.astype("f2") if self.primary == 16 else queries

    def search(self, queries, knob):
        self.index.search_window_size = knob
        return self.index.search(queries, K)[0]


class SvsLvq8(Svs):
    note = "R 32, window 200, alpha 1.2, LVQ 8 bits"
    primary = 8


class SvsLvq4x8(Svs):
    note = "R 32, window 200, alpha 1.2, LVQ 4 bits, re-ranked by 8 more"
    primary, residual = 4, 8


class SvsLeanVec(Svs):
    note = "R 32, window 200, alpha 1.2, LeanVec: half of the dimensions at 8 bits, then all"
    primary = 8

    def compressed(self, loader):
        return self.svs.LeanVecLoader(loader, self.dimension // 2)

    def reload(self, folder):
        return self.svs.LeanVecLoader(str(folder))


class Scann(Peer):
    package = "scann"
    leaves = 1000
    soar = None
    note = "1,000 leaves, 2 dimensions a block, anisotropic .2, re-ordered by the floats"
    knobs = [(leaves, reorder) for leaves in (10, 15, 25, 40, 60, 90, 140, 220, 350, 550)
             for reorder in (30, 60, 100, 160, 250, 500)]

    def build(self, base):
        import scann
        measure = "dot_product" if self.cosine else "squared_l2"
        builder = scann.scann_ops_pybind.builder(base, K, measure)
        builder.set_n_training_threads(1)
        more = {"soar_lambda": self.soar} if self.soar else {}
        threshold = {"anisotropic_quantization_threshold": 0.2} if self.cosine else {}
        self.index = builder.tree(self.leaves, 50, training_sample_size=250_000, **more).score_ah(
            2, **threshold).reorder(100).build()

    def save(self, folder):
        self.index.serialize(str(folder))

    def load(self, folder, base):
        import scann
        self.index = scann.scann_ops_pybind.load_searcher(str(folder))
        self.index.set_num_threads(1)

    def search(self, queries, knob):
        return self.index.search_batched(queries, K, pre_reorder_num_neighbors=knob[1],
                                         leaves_to_search=knob[0])[0]


class ScannSoar(Scann):
    soar = 1.5
    note = "as scann, and SOAR (lambda 1.5)"
    sets = [name for name, cosine in data.COSINE.items() if cosine]  # it refuses distances


class Voyager(Peer):
    package = "voyager"
    note = "M 16, ef_construction 200"

    def build(self, base):
        import voyager
        space = voyager.Space.InnerProduct if self.cosine else voyager.Space.Euclidean
        self.index = voyager.Index(space, num_dimensions=self.dimension, M=16, ef_construction=200,
                                   max_elements=len(base))
        self.index.add_items(base, num_threads=1)

    def save(self, folder):
        self.index.save(str(folder / "index"))

    def load(self, folder, base):
        import voyager
        self.index = voyager.Index.load(str(folder / "index"))

    def search(self, queries, knob):
        return self.index.query(queries, k=K, num_threads=1, query_ef=knob)[0]


PEERS = {
    "scann": Scann,
    "scann soar": ScannSoar,
    "faiss IVF-PQ fast scan": FaissIvf,
    "faiss HNSW32": FaissHnsw,
    "svs vamana f16": Svs,
    "svs vamana lvq8": SvsLvq8,
    "svs vamana lvq4x8": SvsLvq4x8,
    "svs vamana leanvec": SvsLeanVec,
    "hnswlib": Hnswlib,
    "usearch f32": Usearch,
    "usearch i8": UsearchI8,
    "faiss HNSW32 SQ8": FaissHnswSq8,
    "voyager": Voyager,
}


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_set(folder, name):
    cosine = data.COSINE[name]
    base = data.read(folder / f"{name}.base.fbin")
    queries = data.read(folder / f"{name}.query.fbin")
    if cosine:
        base, queries = data.normalised(base), data.normalised(queries)
    return base, queries, data.read(folder / f"{name}.gt.ibin", "<u4"), cosine


def recall(found, truth):
    hits = (found[:, :, None] == truth[:len(found), None, :]).any(axis=2)
    return float(hits.mean())


def do_build(arguments, peer_class):
    import importlib.metadata
    base, _, _, cosine = read_set(arguments.data, arguments.set)
    peer = peer_class(base.shape[1], cosine)
    cpu, wall = time.process_time(), time.monotonic()
    peer.build(base)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    folder = arguments.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    peer.save(folder)
    done = {"set": arguments.set, "peer": arguments.peer, "build_cpu_s": round(cpu, 2),
            "build_wall_s": round(wall, 2), "points": len(base), "note": peer.note,
            "saved_bytes": folder_bytes(folder), "package": peer.package,
            "version": importlib.metadata.version(peer.package)}
    (folder / "build.json").write_text(json.dumps(done), encoding="ascii")
    print(json.dumps(done))


def do_search(arguments, peer_class):
    base, queries, truth, cosine = read_set(arguments.data, arguments.set)
    kept = arguments.folder.parent / "base.npy"
    if not kept.exists():
        numpy.save(kept, base)
    base = numpy.load(kept, mmap_mode="r")
    peer = peer_class(base.shape[1], cosine)
    before = resident_bytes()
    peer.load(arguments.folder, base)
    queries = peer.prepare(queries[:arguments.queries])
    peer.search(queries[:100], peer.knobs[0])
    resident = resident_bytes() - before
    knobs = peer.knobs
    if arguments.knobs:
        knobs = [tuple(knob) if isinstance(knob, list) else knob
                 for knob in json.loads(arguments.knobs)]
    for knob in knobs:
        cpu, wall = time.process_time(), time.monotonic()
        found = peer.search(queries, knob)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        reached = recall(numpy.asarray(found).astype("i8"), truth)
        print(json.dumps({"set": arguments.set, "peer": arguments.peer, "knob": knob,
                          "recall": round(reached, 5), "qps": round(len(queries) / cpu, 1),
                          "qps_wall": round(len(queries) / wall, 1), "resident_bytes": resident}),
              flush=True)
        if reached >= ENOUGH and not isinstance(knob, tuple):
            break


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["list", "build", "search"])
    parser.add_argument("set", choices=data.COSINE)
    parser.add_argument("peer", nargs="?", choices=PEERS)
    parser.add_argument("data", type=pathlib.Path, nargs="?")
    parser.add_argument("cache", type=pathlib.Path, nargs="?")
    parser.add_argument("--queries", type=int, default=data.QUERIES)
    parser.add_argument("--knobs", help="JSON list instead of the peer's own")
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(name for name, peer in PEERS.items() if arguments.set in peer.sets))
        return
    arguments.folder = (arguments.cache / arguments.set / arguments.peer.replace(" ", "_")).resolve()
    {"build": do_build, "search": do_search}[arguments.command](arguments, PEERS[arguments.peer])


if __name__ == "__main__":
    sys.exit(main())
