"""`vectron import` and `vectron export`: exact reports, going on after a kill, round trips."""
import csv
import json
import os
import pty
import subprocess
import time

import numpy
import pytest

from support.cluster import Dev
from support.process import BIN, Process, free_port, run, wait_until


@pytest.fixture(scope="module")
def environment(dev):
    return {"VECTRON_ADDR": dev.grpc_address, "VECTRON_AUTH_ADDR": dev.auth_grpc_address,
            "VECTRON_TOKEN": dev.user()[1], "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def vectron(environment):
    def invoke(*arguments):
        return run("vectron", *arguments, environment=environment)
    return invoke


@pytest.fixture
def collection(vectron, request):
    """A new collection of dimension 4, named for the test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:100]
    distance = getattr(request, "param", "euclidean")
    code, _, err = vectron("collections", "create", name, "--dimension", "4", "--distance", distance)
    assert code == 0, err
    return name


def stored(vectron, collection, ids):
    """The points by id."""
    code, out, err = vectron("points", "get", collection, *ids)
    assert code == 0, err
    # -0 is a whole number to Python, which has but one zero of these.
    points = [json.loads(line, parse_int=float) for line in out.splitlines()]
    return {point["id"]: point for point in points}


def good_line(i):
    return json.dumps({"id": f"p{i}", "vector": [1, i, 2, 3], "payload": {"i": i}})


# What is wrong with a row, and words of the reason that must be given.
BROKEN = [
    ('{"id": "x", "vector": [1, 2', ""),
    ('{"id": "x", "vector": [1, 2, 3]}', "dimension is 4"),
    ('{"id": "x", "vector": [1, 2, 3, "abc"]}', "vector"),
    ('{"id": "x", "vector": [1, 2, 3, NaN]}', ""),
    ('{"id": "x", "vector": [1, 2, 3, 1e39]}', "vector"),
    ('{"vector": [1, 2, 3, 4]}', "id"),
    ('{"id": "x", "vektor": [1, 2, 3, 4]}', "vektor"),
    ('{"id": "%s", "vector": [1, 2, 3, 4]}' % ("x" * 513), "512"),
    ('{"id": "x", "vector": [0, 0, 0, 0]}', "zero"),
    ('{"id": "x", "vector": [1, 2, 3, 4], "payload": {"a": 1, "a": 2}}', "a"),
    ('{"id": "x", "vector": [1, 2, 3, 4], "payload": %s}' % ("{\"d\":" * 40 + "1" + "}" * 40), "deep"),
    ("not JSON at all", ""),
]


@pytest.mark.parametrize("collection", ["cosine"], indirect=True)
@pytest.mark.parametrize("batch", [1, 64, 1000])
def test_every_broken_row_is_reported(vectron, collection, tmp_path, batch):
    """One row in a hundred is broken: exactly those are refused, each with its reason."""
    random = numpy.random.default_rng(batch)
    broken = {int(i): BROKEN[n % len(BROKEN)]
              for n, i in enumerate(sorted(random.choice(3000, 30, replace=False)))}
    file = tmp_path / "points.jsonl"
    file.write_text("".join(f"{broken[i][0] if i in broken else good_line(i)}\n"
                            for i in range(3000)))
    code, out, err = vectron("import", collection, file, "--batch", batch, "--json")
    assert code == 1 and json.loads(out) == {"stored": 2970, "refused": 30}, err
    assert "30 of 3000 rows were refused" in err
    report = (tmp_path / "points.jsonl.refused").read_text().splitlines()
    assert [line.split(":")[0] for line in report] == [f"line {i + 1}" for i in broken]
    for line, (_, words) in zip(report, broken.values(), strict=True):
        assert words in line.split(":", 1)[1] and len(line) > 15, line
    assert not (tmp_path / "points.jsonl.import").exists()
    good = [i for i in range(3000) if i not in broken]
    found = stored(vectron, collection, [f"p{i}" for i in good[::37]])
    assert all(found[f"p{i}"]["payload"] == {"i": i} for i in good[::37])
    code, _, err = vectron("points", "get", collection, "x")
    assert code == 1 and "NOT_FOUND" in err


def test_a_file_without_faults(vectron, collection, tmp_path):
    file = tmp_path / "points.jsonl"
    file.write_text("\n\n" + "\n".join(good_line(i) for i in range(700)))  # no end of the last line
    code, out, err = vectron("import", collection, file)
    assert code == 0 and out == f"700 points stored in {collection}, 0 rows refused\n", err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points.jsonl"]


def test_progress_is_shown_on_a_terminal(environment, collection, tmp_path):
    file = tmp_path / "points.jsonl"
    file.write_text("".join(f"{good_line(i)}\n" for i in range(2000)))
    reader, terminal = pty.openpty()
    process = subprocess.Popen([str(BIN / "vectron"), "import", collection, file], env=environment,
                               stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(reader, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(reader)
    assert process.wait(30) == 0 and b"2000 points" in process.stdout.read()
    process.stdout.close()
    assert b"import [####" in shown and b" 2000/2000 " in shown


def state_of(file):
    try:
        lines = file.with_name(file.name + ".import").read_text().split()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines)


def test_killed_and_started_again(vectron, environment, collection, tmp_path):
    """Killed again and again: it goes on each time, and the report is that of one run."""
    file = tmp_path / "points.jsonl"
    file.write_text("".join(f"{'broken' if i % 100 == 50 else good_line(i)}\n" for i in range(6000)))
    kills = 0
    for wanted in (500, 2500, 4500):
        process = Process("vectron", ("import", collection, file, "--batch", "16"),
                          environment=environment).start()
        deadline = time.monotonic() + 30
        while int(state_of(file).get("stored", 0)) < wanted:
            assert process.popen.poll() is None and time.monotonic() < deadline, process.output()
        process.kill()
        kills += 1
        assert int(state_of(file)["stored"]) < 5940
    code, out, err = vectron("import", collection, file, "--json")
    assert code == 1 and json.loads(out) == {"stored": 5940, "refused": 60}, err
    report = (tmp_path / "points.jsonl.refused").read_text().splitlines()
    assert [line.split(":")[0] for line in report] == [f"line {i + 1}" for i in range(50, 6000, 100)]
    code, out, err = vectron("export", collection, tmp_path / "all.jsonl")
    assert code == 0, err
    found = {json.loads(line)["id"] for line in (tmp_path / "all.jsonl").read_text().splitlines()}
    assert found == {f"p{i}" for i in range(6000) if i % 100 != 50} and kills == 3


def test_an_import_outlives_the_server(tmp_path):
    """Killed and started again in the middle: the same run goes on; with no patience it says how far it is."""
    address = f"127.0.0.1:{free_port()}"
    deployment = Dev(tmp_path, arguments=("--grpc-addr", address)).start()
    environment = {"VECTRON_ADDR": address, "VECTRON_TOKEN": deployment.user()[1]}
    file = tmp_path / "points.jsonl"
    file.write_text("".join(f"{good_line(i)}\n" for i in range(5000)))
    assert run("vectron", "collections", "create", "c", "--dimension", "4", environment=environment)[0] == 0

    def kill_during(*flags):
        process = Process("vectron", ("import", "c", file, "--batch", "8", *flags),
                          environment=environment).start()
        before = int(state_of(file).get("stored", 0))
        while int(state_of(file).get("stored", 0)) < before + 400:
            assert process.popen.poll() is None, process.output()
        deployment.process.kill()
        return process

    process = kill_during()
    deployment = Dev(tmp_path, arguments=("--grpc-addr", address)).start()
    assert int(state_of(file)["stored"]) < 5000
    wait_until(lambda: int(state_of(file).get("stored", 5000)) > 2000, what="more points")
    process.kill()
    process = kill_during("--retry-seconds", "0")
    assert process.popen.wait(30) == 1
    stored_count = int(state_of(file)["stored"])
    wait_until(lambda: any(f"{stored_count} points are stored" in line for line in process.errors),
               what="how far it is")
    deployment = Dev(tmp_path, arguments=("--grpc-addr", address)).start()
    code, out, err = run("vectron", "import", "c", file, "--json", environment=environment)
    assert code == 0 and json.loads(out) == {"stored": 5000, "refused": 0}, err
    wait_until(lambda: b"\nvectron_worker_points 5000\n" in deployment.http().get("/metrics").body,
               what="5,000 points")
    assert deployment.stop() == 0


def test_a_file_that_has_changed_is_not_gone_on_with(vectron, environment, collection, tmp_path):
    file = tmp_path / "points.jsonl"
    file.write_text("".join(f"{good_line(i)}\n" for i in range(3000)))
    process = Process("vectron", ("import", collection, file, "--batch", "1"),
                      environment=environment).start()
    while int(state_of(file).get("stored", 0)) < 5:
        assert process.popen.poll() is None
    process.kill()
    file.write_text("".join(f"{good_line(i)}\n" for i in range(3001)))
    code, _, err = vectron("import", collection, file)
    assert code == 1 and "--restart" in err
    code, out, err = vectron("import", collection, file, "--restart", "--json")
    assert code == 0 and json.loads(out) == {"stored": 3001, "refused": 0}, err
    file.with_name("points.jsonl.import").write_text("offset=5\n")
    code, _, err = vectron("import", collection, file)
    assert code == 1 and "not the state" in err and "--restart" in err


VALUES = numpy.array([[0.1, -0.0, 3e-42, 3.4028235e38], [1 / 3, 16777217, -1e-7, 123456.789]],
                     dtype="f4")
IDS = ["plain", 'ä "quoted", with\nlines and 😀']
PAYLOADS = [{"text": 'a,"b"\nc', "n": 3, "x": 0.5, "no": None, "list": [1, {"a": []}]}, {}]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_there_and_back_bit_for_bit(vectron, collection, tmp_path, ending):
    source = tmp_path / "source.jsonl"
    random = numpy.random.default_rng(5)
    vectors = numpy.concatenate([VALUES, random.standard_normal((500, 4)).astype("f4")])
    ids = IDS + [f"r{i}" for i in range(500)]
    payloads = PAYLOADS + [{"i": i} for i in range(500)]
    source.write_text("".join(
        json.dumps({"id": id, "vector": [float(value) for value in vector], "payload": payload}) + "\n"
        for id, vector, payload in zip(ids, vectors, payloads, strict=True)))
    assert vectron("import", collection, source)[0] == 0
    first, second = tmp_path / f"first.{ending}", tmp_path / f"second.{ending}"
    code, out, err = vectron("export", collection, first)
    assert code == 0 and "502 points" in out, err
    again = collection + "-again"
    assert vectron("collections", "create", again, "--dimension", "4", "--distance", "euclidean")[0] == 0
    code, out, err = vectron("import", again, first)
    assert code == 0 and out.startswith("502 points"), err
    code, _, err = vectron("export", again, second)
    assert code == 0 and first.read_bytes() == second.read_bytes(), err
    found = stored(vectron, again, ids)
    for id, vector, payload in zip(ids, vectors, payloads, strict=True):
        assert numpy.array(found[id]["vector"], "f4").tobytes() == vector.tobytes(), id
        assert found[id]["payload"] == payload


def test_matrices(vectron, collection, tmp_path):
    vectors = numpy.concatenate([VALUES, numpy.random.default_rng(6).standard_normal((998, 4))])
    numpy.save(tmp_path / "doubles.npy", vectors)
    numpy.save(tmp_path / "floats.npy", vectors.astype("f4"))
    code, out, err = vectron("import", collection, tmp_path / "doubles.npy")
    assert code == 0 and out.startswith("1000 points"), err
    (tmp_path / "ids").write_text("".join(f"{i}\n" for i in range(1000)))
    code, out, err = vectron("export", collection, tmp_path / "back.npy", "--ids", tmp_path / "ids")
    assert code == 0, err
    assert numpy.load(tmp_path / "back.npy").tobytes() == vectors.astype("f4").tobytes()
    assert (tmp_path / "back.npy.ids").read_text() == (tmp_path / "ids").read_text()
    (tmp_path / "names").write_text("".join(f"n{i}\r\n" for i in range(1000)))
    code, out, err = vectron("import", collection, tmp_path / "floats.npy", "--ids", tmp_path / "names")
    assert code == 0, err
    point = stored(vectron, collection, ["n1"])["n1"]
    assert numpy.array(point["vector"], "f4").tobytes() == VALUES[1].tobytes()
    # A row that is none, and files that do not fit.
    vectors[7, 2] = numpy.nan
    numpy.save(tmp_path / "nan.npy", vectors)
    code, out, err = vectron("import", collection, tmp_path / "nan.npy", "--json")
    assert code == 1 and json.loads(out) == {"stored": 999, "refused": 1}
    assert (tmp_path / "nan.npy.refused").read_text() == "row 7: vector: value 2 is not finite\n"
    (tmp_path / "few").write_text("a\nb\n")
    code, _, err = vectron("import", collection, tmp_path / "floats.npy", "--ids", tmp_path / "few")
    assert code == 1 and "2 ids for 1000 rows" in err
    numpy.save(tmp_path / "wide.npy", numpy.zeros((3, 5)))
    code, _, err = vectron("import", collection, tmp_path / "wide.npy")
    assert code == 1 and "5 values" in err and "dimension is 4" in err
    code, _, err = vectron("export", collection, tmp_path / "back.npy", "--ids", tmp_path / "few")
    assert code == 1 and "2 ids are not in the collection" in err


def test_csv_of_others(vectron, collection, tmp_path):
    """As csv.writer and spreadsheets write it, values in columns, the rest as payload."""
    with open(tmp_path / "wide.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "v0", "v1", "v2", "v3"])
        writer.writerow(["a", 'say "hi",\nthen go', 1, 2.5, -3, 4e-3])
        writer.writerow(["b", "two", 1, 2, 3])
        writer.writerow(["c", "three", 1, "x", 3, 4])
        writer.writerow(["d", "four", 4, 3, 2, 1])
        file.write('e,"open,1,2,3,4\r\nf,five,1,1,1,1\r\n')
    code, out, err = vectron("import", collection, tmp_path / "wide.csv", "--json")
    assert code == 1 and json.loads(out) == {"stored": 3, "refused": 3}, err
    report = (tmp_path / "wide.csv.refused").read_text().splitlines()
    assert [line.split(":")[0] for line in report] == ["line 4", "line 5", "line 7"]
    found = stored(vectron, collection, ["a", "d", "f"])
    assert found["a"]["payload"] == {"title": 'say "hi",\nthen go'}
    assert found["a"]["vector"] == [1, 2.5, -3, 0.004] and found["f"]["payload"] == {"title": "five"}
    (tmp_path / "none.csv").write_text("name,vector\na,1 2 3 4\n")
    code, _, err = vectron("import", collection, tmp_path / "none.csv")
    assert code == 1 and "no column is named id" in err
    (tmp_path / "spaces.csv").write_text("id,vector\ns,1 2 3 4\nt,[1; 2;3;4]\n")
    assert vectron("import", collection, tmp_path / "spaces.csv")[0] == 0


def test_what_cannot_be_done_is_said(vectron, collection, tmp_path):
    for arguments, words in (
            (("import", collection, tmp_path / "none.jsonl"), "none.jsonl"),
            (("import", collection, tmp_path / "x.txt"), "--format"),
            (("import", collection, tmp_path, "--format", "csv"), str(tmp_path)),
            (("export", "nowhere", tmp_path / "x.jsonl"), "not found"),
            (("export", collection, tmp_path / "no" / "x.jsonl"), "x.jsonl")):
        code, _, err = vectron(*arguments)
        assert code == 1 and words in err, (arguments, err)
    (tmp_path / "a.jsonl").write_text(good_line(1))
    code, _, err = vectron("import", "nowhere", tmp_path / "a.jsonl")
    assert code == 1 and "not found" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_many_points_need_their_ids_named(vectron, collection, tmp_path):
    numpy.save(tmp_path / "many.npy", numpy.random.default_rng(7).standard_normal((10_001, 4)))
    assert vectron("import", collection, tmp_path / "many.npy")[0] == 0
    code, _, err = vectron("export", collection, tmp_path / "back.jsonl")
    assert code == 1 and "--ids" in err and not (tmp_path / "back.jsonl").exists()
