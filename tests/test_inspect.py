"""vectron inspect: what a folder's files hold, and which byte of them is damaged."""
import random
import shutil
import subprocess

import pytest

from support import api
from support.cluster import Cluster
from support.process import BIN, wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stopped cluster's folders, with a graph that was kept and a placement driver's snapshot."""
    path = tmp_path_factory.mktemp("inspect")
    cluster = Cluster(path, workers=1)
    cluster.start()
    _, token = cluster.user()
    client = cluster.grpc(token)
    source = random.Random(1)
    client.CreateCollection(name="seen", dimension=96, distance="dot")
    for start in range(0, 20000, 1000):
        client.Upsert(collection="seen", points=[
            api.vectron.Point(id=f"p{i}", vector=[source.random() for _ in range(96)])
            for i in range(start, start + 1000)])
    state = api.Grpc(cluster.pd_address, api.placementdriver, "StateService")
    for i in range(6):
        state.PutState(timeout=20, entries=[
            api.placementdriver.StateEntry(key=f"inspect/{i}".encode(), value=bytes(900 << 10))])
    wait_until(lambda: list((path / "pd").glob("snapshot-*")), what="a snapshot")
    cluster.stop()
    return path


def inspect(*arguments):
    done = subprocess.run([BIN / "vectron", "inspect", *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_placement_drivers_folder(folder):
    code, out, errors = inspect(folder / "pd")
    assert code == 0, out + errors
    assert "segment 1 of the log" in out or "segment 2 of the log" in out
    assert "group 1: term " in out
    assert "snapshot up to index " in out
    assert "/seen: dimension 96, dot, shards 1" in out
    assert "1 workers" in out
    code, records, _ = inspect("--records", folder / "pd")
    assert code == 0
    assert " entry group 1 index " in records and " command, " in records
    assert len(records.splitlines()) > len(out.splitlines()) + 5


def test_a_workers_graph(folder):
    code, out, errors = inspect(folder / "worker1")
    assert code == 0, out + errors
    assert "graph image: dimension 96, dot, 20000 points in " in out


@pytest.mark.parametrize("pattern", ["pd/wal-*", "pd/snapshot-*", "worker1/db-graphs/*"])
def test_a_flipped_byte_is_told(folder, tmp_path, pattern):
    whole = sorted(folder.glob(pattern))[0]
    damaged = tmp_path / whole.name
    shutil.copy(whole, damaged)
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    code, out, errors = inspect(damaged)
    assert code == 1
    assert "0 files are whole, 1 are not" in errors
    assert str(damaged) in out and "byte" in out or "checksum" in out or "damaged" in out
    assert inspect(whole)[0] == 0


def test_what_is_none_of_ours(tmp_path):
    strange = tmp_path / "strange"
    strange.write_bytes(b"hello")
    code, _, errors = inspect(strange)
    assert code == 1 and "is no segment of a log" in errors
    code, _, errors = inspect(tmp_path / "missing")
    assert code == 1 and "missing" in errors
    code, out, _ = inspect(tmp_path)   # in a folder others' files are passed over
    assert code == 0 and "0 files are whole" in out
