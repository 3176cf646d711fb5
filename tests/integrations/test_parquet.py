"""Parquet by `python -m vectron_client.migrate`: the rules of `vectron import` and `vectron export`."""
import datetime
import json
import os
import signal
import subprocess
import sys
import time

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from support.process import ROOT

sys.path.insert(0, str(ROOT / "clientlibs/python"))

import vectron_client as vc  # noqa: E402 # needs the path above


@pytest.fixture(scope="module")
def environment(dev):
    return {**os.environ, "VECTRON_ADDR": dev.grpc_address, "VECTRON_TOKEN": dev.user()[1],
            "PYTHONPATH": str(ROOT / "clientlibs/python")}


@pytest.fixture
def client(environment):
    with vc.VectronClient(environment["VECTRON_ADDR"], environment["VECTRON_TOKEN"]) as client:
        yield client


def command(*words):
    return [sys.executable, "-m", "vectron_client.migrate", *map(str, words)]


@pytest.fixture
def migrate(environment):
    def invoke(*words):
        done = subprocess.run(command(*words), env=environment, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout, done.stderr
    return invoke


def write(path, rows, **options):
    pyarrow.parquet.write_table(pyarrow.table(rows), path, **options)


def test_there_and_back_bit_for_bit(client, migrate, tmp_path):
    client.create_collection("pq", 4, "euclidean")
    client.create_collection("pq2", 4, "euclidean")
    vectors = numpy.random.default_rng(1).standard_normal((2000, 4)).astype("f4")
    vectors[0] = [-0.0, 3e-42, 3.4028235e38, 1 / 3]
    write(tmp_path / "a.parquet", {
        "id": [f"ä{i}" for i in range(2000)], "vector": vectors.tolist(),
        "payload": [json.dumps({"i": i, "deep": [None, {"x": 0.5}]}) for i in range(2000)]})
    code, out, err = migrate("import", "pq", tmp_path / "a.parquet")
    assert code == 0 and out == "2000 points stored in pq, 0 rows refused\n", err
    code, out, err = migrate("export", "pq", tmp_path / "b.parquet")
    assert code == 0 and out.startswith("2000 points"), err
    code, out, err = migrate("import", "pq2", tmp_path / "b.parquet", "--batch", "100")
    assert code == 0, err
    for i in (0, 1, 999, 1999):
        point = client.get("pq2", f"ä{i}")
        assert numpy.asarray(point.vector).tobytes() == vectors[i].tobytes()
        assert point.payload == {"i": i, "deep": [None, {"x": 0.5}]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
    (tmp_path / "ids").write_text("ä5\nnobody\n")
    code, out, err = migrate("export", "pq", tmp_path / "c.parquet", "--ids", tmp_path / "ids")
    assert code == 1 and "1 ids are not" in err
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet").column("id").to_pylist() == ["ä5"]


def test_broken_rows_are_reported(client, migrate, tmp_path):
    client.create_collection("broken", 2, "cosine")
    wrong = {7: ("id", None, "id"), 130: ("vector", [1.0], "dimension is 2"), 131: ("vector", None, "vector"),
             299: ("vector", [1.0, numpy.nan], "value 1"), 300: ("vector", [0.0, 0.0], "zero"),
             512: ("id", "x" * 513, "512"), 998: ("vector", [1e39, 0.0], "finite")}
    rows = {"id": [f"p{i}" for i in range(1000)], "vector": [[1.0, float(i)] for i in range(1000)],
            "title": [f"t{i}" for i in range(1000)], "count": list(range(1000))}
    for row, (column, value, _) in wrong.items():
        rows[column][row] = value
    write(tmp_path / "a.parquet", rows, row_group_size=300)
    code, out, err = migrate("import", "broken", tmp_path / "a.parquet")
    assert code == 1 and out == "993 points stored in broken, 7 rows refused\n", err
    report = (tmp_path / "a.parquet.refused").read_text().splitlines()
    assert [line.split(":")[0] for line in report] == [f"row {row}" for row in wrong]
    for line, (_, _, words) in zip(report, wrong.values(), strict=True):
        assert words in line, line
    assert client.get("broken", "p999").payload == {"title": "t999", "count": 999}
    write(tmp_path / "b.parquet", {"id": ["a"], "vector": [[1.0, 2.0]], "when": [datetime.date(2020, 1, 1)]})
    code, _, _ = migrate("import", "broken", tmp_path / "b.parquet")
    assert code == 1 and "when is a date" in (tmp_path / "b.parquet.refused").read_text()
    code, _, err = migrate("import", "broken", tmp_path / "b.parquet", "--id-column", "name")
    assert code == 1 and "no column name" in err


def test_killed_and_started_again(client, environment, migrate, tmp_path):
    client.create_collection("killed", 2, "euclidean")
    file = tmp_path / "a.parquet"
    write(file, {"id": list(range(6000)), "vector": [[1.0, float(i)] if i % 100 else [] for i in range(6000)]},
          row_group_size=1111)
    state = tmp_path / "a.parquet.import"
    for wanted in (300, 2500):
        process = subprocess.Popen(command("import", "killed", file, "--batch", "8"), env=environment)
        end = time.monotonic() + 60
        while not state.exists() or json.loads(state.read_text())["stored"] < wanted:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    code, out, err = migrate("import", "killed", file)
    assert code == 1 and out == "5940 points stored in killed, 60 rows refused\n", err
    report = (tmp_path / "a.parquet.refused").read_text().splitlines()
    assert [line.split(":")[0] for line in report] == [f"row {i}" for i in range(0, 6000, 100)]
    found = client.search("killed", [0, 0], 10_000, include_payload=False)
    assert {hit.id for hit in found} == {str(i) for i in range(6000) if i % 100}
