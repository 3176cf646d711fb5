#!/usr/bin/env python3
"""The index beside public ones, one core, one table: see bench/README.md.

    bench/index.py [--sets A,B] [--peers A,B] [--rounds N] [--queries N] [--core N]
                   [--phase data|build|search|report] [--results FILE]

What takes long is kept under build/bench: the sets, the peers' packages and their built indexes. A
second run only searches.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

from common import BATCH, BENCH, KEPT, Driver, index_python, machine
from data import COSINE

SETS = {name: "cosine" if cosine else "euclidean" for name, cosine in COSINE.items()}
RECALLS = (0.90, 0.95, 0.99, 0.995)
OURS = "vectron"
# Efforts as the API's ef says them, then the stop alone.
OUR_KNOBS = [*(f"ef {ef}" for ef in (3, 5, 8, 12, 20, 35)),
             1.02, 1.04, 1.06, 1.08, 1.1, 1.12, 1.14, 1.16, 1.18, 1.2, 1.22, 1.24, 1.27, 1.3, 1.35,
             1.4, 1.5, 1.7, "exact"]


class Run:
    def __init__(self, arguments):
        self.arguments = arguments
        self.python = index_python()
        self.data = KEPT / "data"
        self.peers_folder = KEPT / "peers"
        self.log = KEPT / "index.jsonl"
        self.peers = {name: self.peers_of(name) for name in arguments.sets}
        self.drivers = {}

    def peers_of(self, name):
        names = subprocess.run([self.python, BENCH / "peers.py", "list", name], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        return [peer for peer in names if not self.arguments.peers or peer in self.arguments.peers]

    def pin(self):
        os.sched_setaffinity(0, {self.arguments.core})

    def peer(self, command, name, peer, *more):
        """Start peers.py on our core; yields what it says."""
        process = subprocess.run(
            [self.python, BENCH / "peers.py", command, name, peer, self.data, self.peers_folder, *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=self.pin)
        if process.returncode != 0:
            sys.exit(f"{peer}, {command} on {name}: {process.stderr}")
        return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]

    def build_path(self, name, peer):
        return self.peers_folder / name / peer.replace(" ", "_") / "build.json"

    def built_peers(self, name):
        """A peer that was not built is not asked, and the table says so."""
        return [peer for peer in self.peers[name] if self.build_path(name, peer).exists()]

    def make_data(self):
        subprocess.run([self.python, BENCH / "data.py", self.data, *self.arguments.sets], check=True)

    def build(self):
        for name in self.arguments.sets:
            for peer in self.peers[name]:
                if not self.build_path(name, peer).exists():
                    print(self.peer("build", name, peer)[0], file=sys.stderr)

    def search(self):
        self.log.unlink(missing_ok=True)
        with open(self.log, "w", encoding="ascii") as log:
            for number in range(self.arguments.rounds):
                for name in self.arguments.sets:
                    for peer in [OURS, *self.built_peers(name)]:
                        for line in self.points(name, peer, number):
                            log.write(json.dumps({**line, "set": name, "peer": peer, "round": number,
                                                  "load": os.getloadavg()[0]}) + "\n")
                        log.flush()

    def points(self, name, peer, number):
        print(f"round {number}, {name}, {peer}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        if peer == OURS:
            return list(self.our_points(name))
        more = ["--queries", str(self.arguments.queries)]
        if number > 0:  # only what may be on the front
            more += ["--knobs", json.dumps([point["knob"] for point in
                                            front(read_points(self.log, name, peer))])]
        return self.peer("search", name, peer, *more)

    def our_points(self, name):
        if name not in self.drivers:
            self.drivers[name] = OurIndex(self, name)
        return self.drivers[name].sweep(self.arguments.queries)

    def close(self):
        for driver in self.drivers.values():
            driver.close()


class OurIndex(Driver):
    """Built once and then asked in every round."""

    def __init__(self, run, name):
        base, queries, truth = (run.data / f"{name}.{part}"
                                for part in ("base.fbin", "query.fbin", "gt.ibin"))
        super().__init__(base, queries, SETS[name], run.arguments.core)
        with open(base, "rb") as file:
            count = int.from_bytes(file.read(4), "little")
        built = self.ask(f"put 0 {count} {BATCH}")
        self.ask(f"truth {truth}")
        self.built = {"build_cpu_s": built["cpu_s"], "build_wall_s": built["wall_s"],
                      "points": built["points"], "kernel": self.about["kernel"],
                      "resident_bytes": built["resident_bytes"] - self.about["resident_bytes"]}

    def sweep(self, queries):
        reached = 0
        for knob in OUR_KNOBS:
            if reached < 0.9975 or knob == "exact":
                answer = self.search(knob, queries)
                reached = answer["recall"]
                yield {**answer, **self.built, "knob": knob}


# --- The table


def read_points(path, name, peer):
    """Every knob once: its recall and the medians of its rates."""
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        line = json.loads(line)
        if line["set"] == name and line["peer"] == peer:
            found.setdefault(json.dumps(line["knob"]), []).append(line)
    return [{**lines[0], "qps": statistics.median(line["qps"] for line in lines),
             "qps_wall": statistics.median(line["qps_wall"] for line in lines), "rounds": len(lines)}
            for lines in found.values()]


def front(points):
    """What nothing else beats in both recall and rate, by recall."""
    best, out = 0, []
    for point in sorted(points, key=lambda point: (-point["recall"], -point["qps"])):
        if point["qps"] > best:
            best = point["qps"]
            out.append(point)
    return out[::-1]


def rate_at(points, recall, what="qps"):
    """Between the two neighbours on the front, straight in the logarithms of what recall lacks and of
    the rate. None: the recall is not reached."""
    points = front(points)
    above = next((i for i, point in enumerate(points) if point["recall"] >= recall), None)
    if above is None:
        return None
    high = points[above]
    if above == 0 or high["recall"] == recall:
        return high[what]
    low = points[above - 1]
    lacks = [math.log(max(1 - value, 1e-6)) for value in (low["recall"], recall, high["recall"])]
    part = (lacks[1] - lacks[0]) / (lacks[2] - lacks[0])
    return math.exp(math.log(low[what]) * (1 - part) + math.log(high[what]) * part)


def number(value):
    return "–" if value is None else f"{value:,.0f}"


def describe(run, name, out):
    lines = [json.loads(line) for line in run.log.read_text(encoding="ascii").splitlines()]
    loads = [line["load"] for line in lines if line["set"] == name]
    if not loads:
        return
    rows, best = [], {}
    for peer in [OURS, *run.peers[name]]:
        points = read_points(run.log, name, peer)
        if not points:
            continue
        built = points[0] if peer == OURS else json.loads(
            run.build_path(name, peer).read_text(encoding="ascii"))
        rates = [rate_at(points, recall) for recall in RECALLS]
        if peer != OURS:
            for recall, rate in zip(RECALLS, rates):
                if rate and rate > best.get(recall, (0, ""))[0]:
                    best[recall] = (rate, peer)
        saved = built.get("saved_bytes")
        rows.append((peer, rates, [
            f"{built['build_cpu_s']:.0f}", number(points[0]["resident_bytes"] / built["points"]),
            number(saved / built["points"]) if saved else "–", *map(number, rates)]))
    rounds = max(line["round"] for line in lines if line["set"] == name) + 1
    out.append(f"\n## {name} ({SETS[name]})\n\n{built['points']:,} points, {run.arguments.queries:,} "
               f"queries, medians of {rounds} interleaved rounds, load average {min(loads):.1f} to "
               f"{max(loads):.1f}\n")
    heads = ["build, CPU s", "memory, bytes a vector", "saved, bytes a vector",
             *(f"QPS at {recall}" for recall in RECALLS)]
    out.append(f"| program | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for peer, _, cells in rows:
        out.append(f"| {'**' + peer + '**' if peer == OURS else peer} | {' | '.join(cells)} |")
    missing = [peer for peer in run.peers[name] if peer not in run.built_peers(name)]
    if missing:
        out.append(f"| not built for this run: {', '.join(missing)} | | | | | | | |")
    ours = next((rates for peer, rates, _ in rows if peer == OURS), [None] * len(RECALLS))
    ratios = [f"{mine / best[recall][0]:.2f} ({best[recall][1]})" if mine and recall in best else "–"
              for recall, mine in zip(RECALLS, ours)]
    out.append(f"| ours / the best peer | | | | {' | '.join(ratios)} |")


def report(run):
    built = {}
    for path in run.peers_folder.glob("*/*/build.json"):
        entry = json.loads(path.read_text(encoding="ascii"))
        built[entry["peer"]] = entry
    out = [f"# index.py\n\n{machine()}. One thread, on one processor; rates are per second of processor time. Peers get all queries in one call, ours one after the other. "
           "Memory is what the process grew by when the index was loaded (ours: built), the vectors "
           "that it keeps for itself included.\n", "| program | package | settings |\n|---|---|---|"]
    out += [f"| {peer} | {built[peer]['package']} {built[peer]['version']} | {built[peer]['note']} |"
            for peer in built]
    for name in run.arguments.sets:
        describe(run, name, out)
    text = "\n".join(out) + "\n"
    print(text)
    if run.arguments.results:
        run.arguments.results.write_text(text, encoding="utf-8")


def main():
    def words(text):
        return [word.strip() for word in text.split(",") if word.strip()]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=words, default=list(SETS))
    parser.add_argument("--peers", type=words, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--phase", choices=["data", "build", "search", "report"])
    parser.add_argument("--results", type=pathlib.Path)
    arguments = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    run = Run(arguments)
    phases = {"data": run.make_data, "build": run.build, "search": run.search,
              "report": lambda: report(run)}
    try:
        for phase, action in phases.items():
            if arguments.phase in (None, phase):
                action()
    finally:
        run.close()


if __name__ == "__main__":
    main()
