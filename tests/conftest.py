import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from support import certificates, witness  # noqa: E402 # needs the path above
from support.cluster import Cluster, Dev  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def no_raw_key():
    """Nothing that a service sent or logged in this run holds an API key in clear."""
    yield
    size, keys, found = witness.check()
    assert not found, f"{len(found)} of {keys} raw keys are in {size} bytes that the services sent"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vectron")


@pytest.fixture(scope="module")
def dev(folder):
    """One `vectron dev` for the tests of a file."""
    deployment = Dev(folder).start()
    yield deployment
    assert deployment.stop() == 0, deployment.process.output()


@pytest.fixture(scope="module")
def cluster(folder):
    """Six processes for the tests of a file."""
    deployment = Cluster(folder).start()
    yield deployment
    codes = deployment.stop()
    assert set(codes.values()) == {0}, codes


@pytest.fixture(scope="module")
def tls_cluster(folder):
    deployment = Cluster(folder, tls=certificates.make(folder / "tls")).start()
    yield deployment
    codes = deployment.stop()
    assert set(codes.values()) == {0}, codes


@pytest.fixture(scope="module", params=["dev", "cluster", "tls"])
def deployment(request, tmp_path_factory):
    """Every way to run Vectron in turn: one process, six processes, six with TLS."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "dev":
        running = Dev(folder)
    elif request.param == "cluster":
        running = Cluster(folder)
    else:
        running = Cluster(folder, tls=certificates.make(folder / "tls"))
    running.start()
    yield running
    running.stop()
