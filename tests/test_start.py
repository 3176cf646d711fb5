"""Starting: any order, empty environment, flags and settings, the ready line, the end by SIGTERM."""
import os
import stat
import time

import pytest

from support import api
from support.cluster import Cluster, Dev
from support.process import Process, free_port, run

BINARIES = ["placementdriver", "worker", "apigateway", "authsvc", "reranker", "vectron"]


@pytest.mark.parametrize("binary", BINARIES)
def test_help_and_version(binary):
    code, out, _ = run(binary, "--help")
    assert code == 0 and "usage" in out.lower()
    code, out, _ = run(binary, "--version")
    assert code == 0 and out.startswith("vectron 0.")


@pytest.mark.parametrize("binary, flag, nearest", [
    ("placementdriver", "--grcp-addr", "--grpc-addr"), ("worker", "--pd-addr", "--pd-addrs"),
    ("apigateway", "--http-adr", "--http-addr"), ("authsvc", "--grpc-prt", "--grpc-port"),
    ("reranker", "--prt", "--port"),
])
def test_an_unknown_flag_names_the_nearest(binary, flag, nearest):
    code, _, err = run(binary, flag, "x")
    assert code == 2 and flag in err and nearest in err


def test_an_unknown_verb_names_the_nearest():
    code, _, err = run("vectron", "colections", "list")
    assert code == 2 and "collections list" in err


def test_settings_and_their_sources(tmp_path):
    (tmp_path / "w.conf").write_text("# a comment\ndata-dir = from-file\nraft-addr = :9999\n")
    code, out, _ = run("worker", "--config", tmp_path / "w.conf", "--grpc-addr=:7000",
                       "--print-config", environment={"PD_ADDRS": "a:1,b:2"})
    assert code == 0
    lines = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    assert lines["grpc-addr"].split("#")[0].strip() == ":7000" and "flag" in lines["grpc-addr"]
    assert lines["pd-addrs"].startswith("a:1,b:2") and "environment" in lines["pd-addrs"]
    assert lines["data-dir"].startswith("from-file") and "file" in lines["data-dir"]
    assert lines["node-id"].startswith("1") and "default" in lines["node-id"]
    code, out, _ = run("authsvc", "--print-config", environment={"JWT_SECRET": "s" * 40})
    assert code == 0 and "ssss" not in out


@pytest.mark.parametrize("binary, arguments, environment, words", [
    ("worker", ["--grpc-addr", "nonsense"], {}, ["grpc-addr"]),
    ("worker", ["--node-id", "x"], {}, ["node-id"]),
    ("placementdriver", ["--grpc-addr", "0.0.0.0:0"], {}, ["VECTRON_CLUSTER_SECRET"]),
    ("authsvc", [], {"JWT_SECRET": "short"}, ["JWT_SECRET", "32"]),
    ("apigateway", [], {"GRPC_TLS_CERT_FILE": "/nonexistent", "GRPC_TLS_KEY_FILE": "/none"},
     ["/nonexistent"]),
    ("worker", ["--config", "/nonexistent"], {}, ["/nonexistent"]),
])
def test_wrong_settings_end_it_with_a_reason(tmp_path, binary, arguments, environment, words):
    code, _, err = run(binary, *arguments, environment=environment, folder=tmp_path)
    assert code != 0
    for word in words:
        assert word in err


def test_any_order_answers_the_same(tmp_path):
    cluster = Cluster(tmp_path)
    order = ["apigateway", "reranker", "authsvc", "worker2", "worker1", "placementdriver"]
    cluster.start(order)
    dev = Dev(tmp_path / "dev")
    (tmp_path / "dev").mkdir()
    dev.start()
    try:
        answers = []
        for deployment in (cluster, dev):
            _, token = deployment.user()
            client = deployment.http(token)
            client.post("/v1/collections", {"name": "o", "dimension": 2, "distance": "euclidean"})
            client.post("/v1/collections/o/points", {"points": [
                {"id": str(i), "vector": [i, 1], "payload": {"i": i}} for i in range(50)]})
            found = client.post("/v1/collections/o/points/search",
                                {"vector": [20, 1], "top_k": 7, "includeVectors": True}).json
            answers.append(found["results"])
        assert answers[0] == answers[1] and len(answers[0]) == 7
    finally:
        assert dev.stop() == 0
        assert set(cluster.stop().values()) == {0}


def test_services_of_one_folder_share_the_secret(tmp_path):
    """With nothing set but addresses, tokens of the auth service open the gateway."""
    cluster = Cluster(tmp_path).start()
    try:
        secret = tmp_path / "vectron.secret"
        assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
        _, token = cluster.user()
        assert cluster.http(token).get("/v1/collections").code == 200
    finally:
        cluster.stop()


def test_a_port_in_use_is_a_clear_error(tmp_path):
    first = Process("reranker", ["--port", "127.0.0.1:0"], tmp_path).start()
    try:
        address = first.ready()["grpc"]
        code, _, err = run("reranker", "--port", address, folder=tmp_path)
        assert code == 1 and address.split(":")[1] in err
    finally:
        first.stop()


def test_two_workers_cannot_share_a_data_directory(tmp_path):
    arguments = ["--grpc-addr", "127.0.0.1:0", "--raft-addr", "127.0.0.1:0", "--pd-addrs",
                 f"127.0.0.1:{free_port()}", "--data-dir", tmp_path / "w"]
    first = Process("worker", arguments, tmp_path).start()
    try:
        first.ready()
        code, _, err = run("worker", *arguments, folder=tmp_path)
        assert code == 1 and "w" in err
    finally:
        first.stop()


def test_dev_makes_its_secrets_once(tmp_path):
    dev = Dev(tmp_path).start()
    login = dev.process.wait_line("admin login: ")
    token = dev.process.wait_line("SDK token: ").split("VECTRON_TOKEN=")[1]
    assert dev.http(token).get("/v1/collections").code == 200
    for name in ("admin-login", "sdk-token", "vectron.secret"):
        assert stat.S_IMODE(os.stat(tmp_path / "data" / name).st_mode) == 0o600
    email, password = login.split()[2:]
    assert (tmp_path / "data" / "admin-login").read_text().split() == [email, password]
    answer = dev.auth_http().post("/v1/users/login", {"email": email, "password": password})
    assert answer.code == 200
    admin = dev.http(answer.json["jwtToken"])
    assert admin.get("/v1/admin/stats").code == 200
    assert dev.stop() == 0

    dev.process.lines.clear()
    dev.start()
    assert dev.http(token).get("/v1/collections").code == 200
    assert dev.stop() == 0


def test_dev_is_small_quick_and_quiet(tmp_path):
    started = time.monotonic()
    dev = Dev(tmp_path)
    dev.process.start()
    dev.process.ready()
    first = time.monotonic() - started
    dev.process.stop()
    started = time.monotonic()
    dev.process.lines.clear()
    dev.process.start()
    dev.process.ready()
    again = time.monotonic() - started
    time.sleep(1)
    cpu = dev.process.cpu_seconds()
    time.sleep(3)
    used = dev.process.cpu_seconds() - cpu
    resident = dev.process.resident_bytes()
    dev.process.stop()
    print(f"first start {first:.2f} s, again {again:.2f} s, {resident / 1e6:.1f} MB, "
          f"{used / 3:.4f} CPU idle")
    # Generous, for noisy machines; bench/ holds the measured figures.
    assert resident < 30_000_000
    assert used <= 0.1
    assert again < 3


def test_sigterm_finishes_what_is_in_flight(tmp_path):
    dev = Dev(tmp_path).start()
    _, token = dev.user()
    client = dev.grpc(token)
    client.CreateCollection(name="f", dimension=100, distance="dot")
    points = [api.vectron.Point(id=str(i), vector=[float(i)] * 100) for i in range(5000)]
    import threading
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(
        client.Upsert(collection="f", points=points).upserted))
    thread.start()
    time.sleep(0.02)
    code = dev.stop()
    thread.join()
    assert code == 0 and outcome == [5000]
