#!/usr/bin/env python3
"""What turnover does to an index, beside public ones: see bench/README.md.

    bench/churn.py [--points N] [--rounds N] [--queries N] [--core N] [--only NAME] [--results FILE]

Word vectors: N points at first; in every round a tenth of them, the oldest, is removed and as many
new ones come. After each round recall and rate at the same knobs, and at the end the same points
built anew.
"""
import argparse
import math
import os
import pathlib
import statistics
import sys
import time

import common

if sys.prefix == sys.base_prefix:  # the peers live in a Python of their own
    python = common.index_python()
    os.execv(python, [python, *sys.argv])

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy  # noqa: E402 # reads the environment above
import data  # noqa: E402

NAME = "glove"
REPEATS = 3
EFFORTS = (60, 120, 240, 480)


class Peer:
    """One index: put and remove rows of the base, search; processor seconds of what it does."""
    knobs = EFFORTS

    def __init__(self, run):
        self.run = run

    def timed(self, action, *arguments):
        start = time.process_time()
        action(*arguments)
        return time.process_time() - start

    def measure(self, knob):
        queries = self.run.queries
        rates = []
        for _ in range(REPEATS):
            start = time.process_time()
            found = self.search(queries, knob)
            rates.append(len(queries) / (time.process_time() - start))
        hits = (numpy.asarray(found).astype("i8")[:, :, None] == self.run.truth[:, None, :]).any(axis=2)
        return {"recall": float(hits.mean()), "qps": statistics.median(rates)}

    def look(self):
        pass

    def close(self):
        pass


class Hnswlib(Peer):
    """Removed points are marked, and their slots used again."""
    name = "hnswlib"

    def __init__(self, run):
        super().__init__(run)
        import hnswlib
        self.index = hnswlib.Index(space="ip", dim=run.base.shape[1])
        self.index.init_index(max_elements=run.points + run.step, M=16, ef_construction=200,
                              allow_replace_deleted=True)

    def put(self, start, end):
        return self.timed(lambda: self.index.add_items(
            self.run.base[start:end], numpy.arange(start, end), num_threads=1, replace_deleted=True))

    def remove(self, start, end):
        return self.timed(lambda: [self.index.mark_deleted(row) for row in range(start, end)])

    def search(self, queries, knob):
        self.index.set_ef(knob)
        return self.index.knn_query(queries, k=data.K, num_threads=1)[0]


class Usearch(Peer):
    name = "usearch f32"

    def __init__(self, run):
        super().__init__(run)
        from usearch.index import Index
        self.index = Index(ndim=run.base.shape[1], metric="cos", dtype="f32", connectivity=16,
                           expansion_add=200)

    def put(self, start, end):
        return self.timed(lambda: self.index.add(numpy.arange(start, end, dtype="u8"),
                                                 self.run.base[start:end], threads=1))

    def remove(self, start, end):
        return self.timed(lambda: self.index.remove(numpy.arange(start, end, dtype="u8"), threads=1))

    def search(self, queries, knob):
        self.index.expansion_search = knob
        return self.index.search(queries, data.K, threads=1).keys


class Ours(Peer):
    name = "vectron"
    knobs = (1.1, 1.15, 1.2, 1.25, 1.3)

    def __init__(self, run):
        super().__init__(run)
        self.driver = common.Driver(run.base_path, run.query_path, "cosine", run.core)
        self.truth = None

    def put(self, start, end):
        return self.driver.ask(f"put {start} {end} {common.BATCH}")["cpu_s"]

    def look(self):
        """Whether the graph's invariants hold: it ends the program when one does not."""
        self.driver.ask("check")

    def remove(self, start, end):
        self.last = self.driver.ask(f"remove {start} {end} {common.BATCH}")
        return self.last["cpu_s"]

    def measure(self, knob):
        if self.truth != self.run.truth_path:
            self.truth = self.run.truth_path
            self.driver.ask(f"truth {self.truth}")
        runs = [self.driver.search(knob, len(self.run.queries)) for _ in range(REPEATS)]
        return {**runs[0], "qps": statistics.median(run["qps"] for run in runs)}

    def close(self):
        self.driver.close()


class Run:
    def __init__(self, arguments):
        self.core = arguments.core
        os.sched_setaffinity(0, {self.core})
        folder = common.KEPT / "data"
        data.make(folder, NAME)
        self.base_path, self.query_path = folder / f"{NAME}.base.fbin", folder / f"{NAME}.query.fbin"
        self.base = data.normalised(data.read(self.base_path))
        self.queries = data.normalised(data.read(self.query_path))[:arguments.queries]
        self.points, self.rounds = arguments.points, arguments.rounds
        self.step = self.points // 10
        if self.points + self.rounds * self.step > len(self.base):
            sys.exit(f"{self.points} points and {self.rounds} rounds need more than {len(self.base)} rows")
        self.truth = self.truth_path = None

    def live(self, number):
        """Which rows are there after so many rounds."""
        return number * self.step, number * self.step + self.points

    def look_at(self, number):
        start, end = self.live(number)
        window = (common.KEPT / "data", NAME, start, end, len(self.queries))
        self.truth, self.truth_path = data.window_truth(*window), data.window_path(*window)

    def measure(self, kind):
        """Rows of the table: (round, what it cost, a result for every knob)."""
        index = kind(self)
        cost = {"put": index.put(*self.live(0))}
        for number in range(self.rounds + 1):
            if number > 0:
                old, new = self.live(number - 1), self.live(number)
                cost = {"remove": index.remove(old[0], new[0]), "put": index.put(old[1], new[1])}
            index.look()
            self.look_at(number)
            yield number, cost, [index.measure(knob) for knob in kind.knobs]
            print(f"{kind.name}, round {number}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        index.close()
        index = kind(self)
        cost = {"put": index.put(*self.live(self.rounds))}
        yield "built anew", cost, [index.measure(knob) for knob in kind.knobs]
        index.close()


def at_distances(results, distances):
    """Recall where that many distances a query are computed, between two measured knobs."""
    for low, high in zip(results, results[1:]):
        if low["distances"] <= distances <= high["distances"]:
            part = (math.log(distances / low["distances"])
                    / math.log(high["distances"] / low["distances"]))
            return low["recall"] + part * (high["recall"] - low["recall"])
    return None


def describe(run, kind):
    out = [f"\n## {kind.name}\n", f"| round | removes/s | puts/s | "
           f"{' | '.join(f'recall, QPS at {knob}' for knob in kind.knobs)} |",
           f"|{'---|' * (len(kind.knobs) + 3)}"]
    rows = list(run.measure(kind))
    for number, cost, results in rows:
        removes = f"{run.step / cost['remove']:,.0f}" if cost.get("remove") else "–"
        count = run.step if "remove" in cost else run.points
        cells = " | ".join(f"{result['recall']:.4f}, {result['qps']:,.0f}" for result in results)
        out.append(f"| {number} | {removes} | {count / cost['put']:,.0f} | {cells} |")
    lost = [fresh["recall"] - old["recall"] for old, fresh in zip(rows[-2][2], rows[-1][2])]
    out.append(f"\nRecall lost against the same points built anew, at the same knobs: "
               f"{', '.join(f'{value:.4f}' for value in lost)}.")
    if "distances" in rows[-1][2][0] and len(kind.knobs) > 1:
        pairs = [(at_distances(rows[-2][2], fresh["distances"]), fresh) for fresh in rows[-1][2]]
        lost = [f"{fresh['recall'] - old:.4f} ({fresh['distances']:,.0f})"
                for old, fresh in pairs if old is not None]
        out.append(f"At equal distances a query: {', '.join(lost)}.")
    return out


def half(run):
    """Memory after half of the points are gone, beside an index that never held more."""
    index = Ours(run)
    index.put(0, run.points)
    index.remove(0, run.points // 2)
    after = index.last["index_bytes"]
    index.close()
    index = Ours(run)
    answer = index.driver.ask(f"put {run.points // 2} {run.points} {common.BATCH}")
    index.close()
    return (f"\nMemory after half of {run.points:,} points were removed: {after / 1e6:.1f} MB; of that "
            f"half built anew: {answer['index_bytes'] / 1e6:.1f} MB.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=[kind.name for kind in (Ours, Hnswlib, Usearch)])
    parser.add_argument("--results", type=pathlib.Path)
    arguments = parser.parse_args()
    run = Run(arguments)
    loads = [os.getloadavg()[0]]
    out = [f"# churn.py\n\n{common.machine()}. {run.points:,} word vectors x {run.base.shape[1]}, cosine; "
           f"each round removes the oldest {run.step:,} and puts {run.step:,} new ones. "
           f"{len(run.queries):,} queries, one thread, rates per second of processor time."]
    for kind in (Ours, Hnswlib, Usearch):
        if arguments.only in (None, kind.name):
            out += describe(run, kind)
            if kind is Ours:
                out.append(half(run))
            loads.append(os.getloadavg()[0])
    out.append(f"\nLoad average {min(loads):.1f} to {max(loads):.1f}.")
    text = "\n".join(out) + "\n"
    print(text)
    if arguments.results:
        arguments.results.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
