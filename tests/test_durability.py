"""kill -9 of each process under write load: what was acknowledged is there afterwards."""
import random
import struct
import threading
import time

import grpc
import pytest

from support import api
from support.cluster import Cluster, Dev
from support.process import wait_until

ROUNDS = 20


class Writer(threading.Thread):
    """Upserts and deletes without a pause, and remembers what was acknowledged."""

    def __init__(self, client, number, seed):
        super().__init__(daemon=True)
        self.client = client
        self.number = number
        self.random = random.Random(seed)
        self.acknowledged = {}   # id -> version, or None when deleted
        self.uncertain = {}      # id -> versions whose call failed
        self.version = 0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            self.version += 1
            name = f"w{self.number}-{self.random.randrange(200)}"
            version = None if self.random.random() < 0.1 else self.version
            try:
                if version is None:
                    self.client.Delete(collection="d", id=name, timeout=10)
                else:
                    self.client.Upsert(collection="d", timeout=10, points=[
                        api.vectron.Point(id=name, vector=[version, 1])])
                self.acknowledged[name] = version
                self.uncertain.pop(name, None)
            except grpc.RpcError:
                self.uncertain.setdefault(name, set()).add(version)
                time.sleep(0.01)

    def check(self, client):
        """Every id holds its last acknowledged version, or that of a later call whose fate is open."""
        for name, version in self.acknowledged.items():
            possible = {version} | self.uncertain.get(name, set())
            try:
                vector = client.Get(collection="d", id=name, timeout=10).point.vector
                found = int(struct.unpack("<f", struct.pack("<f", vector[0]))[0])
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND, error.details()
                found = None
            assert found in possible, f"{name}: {found} is none of {possible}"


def load_and_kill(deployment, processes, rounds):
    """Kill and restart each of the processes in turn under the load of four writers."""
    _, token = deployment.user()
    client = deployment.grpc(token)
    client.CreateCollection(name="d", dimension=2, distance="euclidean")
    writers = [Writer(deployment.grpc(token), i, seed=i) for i in range(4)]
    for writer in writers:
        writer.start()
    pause = random.Random(7)
    for i in range(rounds):
        time.sleep(0.1 + pause.random() * 0.3)
        process = processes[i % len(processes)]
        process.kill()
        process.lines.clear()
        process.start()
        process.ready()
        deployment.wait_ready()
    # Enough to say something, however slow the machine is.
    wait_until(lambda: sum(len(writer.acknowledged) for writer in writers) > 100, seconds=60,
               what="acknowledged writes")
    for writer in writers:
        writer.stopping.set()
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()
    client = deployment.grpc(token)
    for writer in writers:
        writer.check(client)
    return client


def test_no_process_of_a_cluster_loses_what_was_acknowledged(tmp_path):
    cluster = Cluster(tmp_path).start()
    try:
        load_and_kill(cluster, list(cluster.processes.values()), ROUNDS)
    finally:
        cluster.stop()


def test_vectron_dev_loses_nothing(tmp_path):
    dev = Dev(tmp_path)
    # Fixed ports: clients find it again after a restart.
    dev.start()
    arguments = dev.process.command
    for flag, address in (("--http-addr", dev.http_address), ("--grpc-addr", dev.grpc_address),
                          ("--auth-http-addr", dev.auth_http_address),
                          ("--auth-grpc-addr", dev.auth_grpc_address)):
        arguments[arguments.index(flag) + 1] = address
    try:
        client = load_and_kill(dev, [dev.process], 5)
        # Accounts, keys and collections are there as well.
        assert list(client.ListCollections().collections) == ["d"]
    finally:
        dev.stop()


@pytest.mark.parametrize("name", ["placementdriver", "worker1", "authsvc", "reranker", "apigateway"])
def test_garbage_at_the_end_of_a_killed_process_files_is_no_obstacle(tmp_path, name):
    """It starts again after a kill in the middle of its start."""
    cluster = Cluster(tmp_path).start()
    try:
        for delay in (0, 0.005, 0.02, 0.05):
            process = cluster.processes[name]
            process.kill()
            process.start()
            time.sleep(delay)
        process = cluster.processes[name]
        process.kill()
        process.lines.clear()
        process.start()
        process.ready()
        cluster.wait_ready()
        _, token = cluster.user()
        client = cluster.grpc(token)
        client.CreateCollection(name="again", dimension=2)
        client.Upsert(collection="again", points=[api.vectron.Point(id="a", vector=[1, 2])])
        assert client.Get(collection="again", id="a").point.id == "a"
    finally:
        cluster.stop()
