"""The verbs of `vectron` against a running deployment."""
import json

import numpy
import pytest

from support import api
from support.process import run, wait_until


@pytest.fixture(scope="module")
def vectron(dev, folder):
    """Run a verb as a user with his own home; returns (exit code, stdout, stderr)."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "VECTRON_ADDR": dev.grpc_address,
                   "VECTRON_AUTH_ADDR": dev.auth_grpc_address}

    def invoke(*arguments, **options):
        return run("vectron", *arguments, environment=environment, **options)

    email, password = (folder / "data" / "admin-login").read_text().split()
    code, out, err = invoke("login", email, "--password-file", "-", text_in=password + "\n")
    assert code == 0 and email in out, err
    code, out, err = invoke("keys", "create", "cli", "--save")
    assert code == 0 and out.count(".") == 2, err
    return invoke


def test_keys(vectron):
    code, out, _ = vectron("keys", "create", "second", "--role", "reader", "--json")
    made = json.loads(out)
    assert code == 0 and made["keyInfo"]["role"] == "reader"
    _, out, _ = vectron("keys", "list")
    assert "second" in out and made["keyInfo"]["keyPrefix"] in out
    assert vectron("keys", "delete", made["keyInfo"]["keyPrefix"])[0] == 0
    _, out, _ = vectron("keys", "list", "--json")
    assert made["keyInfo"]["keyPrefix"] not in out
    code, _, err = vectron("keys", "delete", "vtk_00000000")
    assert code == 1 and "NOT_FOUND" in err


def test_an_admin_is_made_by_whoever_has_the_secret(vectron, dev, folder):
    secret = folder / "data" / "vectron.secret"
    arguments = ("admin", "create", " Chief@Example.com", "--password-file", "-", "--secret-file")
    code, out, err = vectron(*arguments, secret, text_in="Correct-chief-7\n")
    assert code == 0 and "is an admin" in out, err
    person = dev.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    answer = person.post("/v1/users/login",
                         {"email": "chief@example.com", "password": "Correct-chief-7"})
    assert dev.http(answer.json["jwtToken"]).get("/v1/admin/stats").code == 200
    # An account that is there gets the role and the password.
    email, login = dev.register()
    assert dev.http(login).get("/v1/admin/stats").code == 403
    code, out, err = vectron("admin", "create", email, *arguments[3:], secret, "--json",
                             text_in="Correct-chief-8\n")
    assert code == 0 and json.loads(out)["userId"], err
    answer = person.post("/v1/users/login", {"email": email, "password": "Correct-chief-8"})
    assert dev.http(answer.json["jwtToken"]).get("/v1/admin/stats").code == 200
    wait_until(lambda: dev.http(login).get("/v1/admin/stats").code == 401,
               seconds=1, what="the end of the old login")
    # Without the secret, with a wrong one, with a password against the rules: nobody.
    code, _, err = vectron(*arguments, folder / "none", text_in="Correct-chief-7\n")
    assert code == 1 and "there is no" in err and not (folder / "none").exists()
    (folder / "wrong").write_text("x" * 40)
    code, _, err = vectron(*arguments, folder / "wrong", text_in="Correct-chief-7\n")
    assert code == 1 and "FORBIDDEN" in err
    code, _, err = vectron(*arguments, secret, text_in="short\n")
    assert code == 1 and "password" in err


def test_points_from_json_lines(vectron, folder):
    assert vectron("collections", "create", "lines", "--dimension", "2")[0] == 0
    text = "\n".join(json.dumps({"id": f"l{i}", "vector": [1, i], "payload": {"i": i}})
                     for i in range(1000))
    (folder / "points.jsonl").write_text(text + "\n")
    code, out, err = vectron("points", "upsert", "lines", "--file", folder / "points.jsonl",
                             "--batch", "100", "--json")
    assert code == 0 and json.loads(out) == {"upserted": 1000}, err
    code, out, _ = vectron("points", "get", "lines", "l7", "l8")
    assert code == 0 and [json.loads(line)["payload"] for line in out.splitlines()] == [
        {"i": 7}, {"i": 8}]
    assert vectron("points", "delete", "lines", "l7")[0] == 0
    code, _, err = vectron("points", "get", "lines", "l7")
    assert code == 1 and "not found" in err
    code, _, err = vectron("points", "upsert", "lines", "--file", "-",
                           text_in='{"id": "a", "vector": [1, 2]}\n{"id": "b", "vecktor": []}\n')
    assert code == 1 and "line 2" in err and "vecktor" in err
    _, out, _ = vectron("collections", "status", "lines")
    assert "2 dimensions, cosine" in out
    assert vectron("collections", "delete", "lines")[0] == 0
    _, out, _ = vectron("collections", "list")
    assert "lines" not in out.split()


def test_points_from_npy_and_search(vectron, folder):
    vectors = numpy.random.default_rng(1).standard_normal((500, 8))
    numpy.save(folder / "v.npy", vectors)
    (folder / "ids.txt").write_text("\n".join(f"n{i}" for i in range(500)) + "\n")
    vectron("collections", "create", "npy", "--dimension", "8", "--distance", "euclidean")
    code, out, err = vectron("points", "upsert", "npy", "--npy", folder / "v.npy", "--ids",
                             folder / "ids.txt")
    assert code == 0 and "500 points" in out, err
    code, out, _ = vectron("search", "npy", "--id", "n42", "--top-k", "3")
    assert code == 0 and out.split()[1] == "n42" and "3 hits" in out
    code, out, _ = vectron("search", "npy", "--vector", json.dumps(list(vectors[7])), "--json")
    assert code == 0 and json.loads(out)["results"][0]["id"] == "n7"
    (folder / "short.txt").write_text("one\n")
    code, _, err = vectron("points", "upsert", "npy", "--npy", folder / "v.npy", "--ids",
                           folder / "short.txt")
    assert code == 1 and "500 rows" in err


def test_usage_errors(vectron):
    assert vectron("collections", "create")[0] == 2
    code, _, err = vectron("collections", "list", "--jsno")
    assert code == 2 and "--json" in err
    code, out, _ = vectron("completion", "bash")
    assert code == 0 and "complete" in out
    assert vectron("completion", "fish")[0] == 2


def test_without_a_server(folder):
    code, _, err = run("vectron", "collections", "list", "--addr", "127.0.0.1:1", "--token", "x",
                       "--timeout-ms", "2000", environment={"HOME": str(folder)})
    assert code == 1 and "UNAVAILABLE" in err
