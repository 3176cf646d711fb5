"""The audit log: everything that is done to accounts is in it, nothing secret is, and changes show."""
import json

import pytest

from support import api
from support.cluster import PASSWORD, Cluster
from support.process import run

ADMIN = {"VECTRON_ADMIN_EMAIL": "boss@example.com", "VECTRON_ADMIN_PASSWORD": "Correct-boss-7"}


@pytest.fixture(scope="module")
def world(folder):
    cluster = Cluster(folder, workers=1, environment=ADMIN).start()
    cluster.log = folder / "auth-data/audit/audit.log"
    yield cluster
    cluster.stop()


def admin(world):
    email, password = ADMIN.values()
    person = world.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    return person.post("/v1/users/login", {"email": email, "password": password}).json["jwtToken"]


def events(client, after=0, **query):
    more = "".join(f"&{name}={value}" for name, value in query.items())
    answer = client.get(f"/v1/admin/audit?after={after}{more}")
    assert answer.code == 200, answer.body
    return answer.json["events"]


def last_number(world):
    return json.loads(world.log.read_text().splitlines()[-1])["seq"]


def test_what_is_done_is_written_down(world):
    boss = admin(world)
    before = last_number(world)
    address = api.fresh_address()
    person = world.http(headers={"x-forwarded-for": address})
    email, other = "audited@example.com", "Another-horse-8"
    user_id = person.post("/v1/users/register",
                          {"email": email, "password": PASSWORD}).json["user"]["id"]
    person.post("/v1/users/login", {"email": email, "password": "Wrong-horse-9"})
    person.post("/v1/users/login", {"email": "nobody@example.com", "password": PASSWORD})
    login = person.post("/v1/users/login", {"email": email, "password": PASSWORD}).json["jwtToken"]
    person = world.http(login, headers={"x-forwarded-for": address})
    made = person.post("/v1/keys", {"name": "k"}).json
    key = made["keyInfo"]["keyPrefix"]
    token = person.post("/v1/sdk-jwt", {"apiKeyId": key}).json["sdkJwt"]
    person.get("/v1/keys")  # changes nothing
    person.delete("/v1/keys/vtk_00000000")
    person.delete("/v1/keys/" + PASSWORD)  # pasted into the wrong field
    person.delete(f"/v1/keys/{key}")
    person.put("/v1/user/profile", {"plan": "PAID"})
    person.post("/v1/user/password", {"oldPassword": PASSWORD, "newPassword": other})
    login = world.http(headers={"x-forwarded-for": address}).post(
        "/v1/users/login", {"email": email, "password": other}).json["jwtToken"]
    world.http(login, headers={"x-forwarded-for": address}).post(
        "/v1/user/delete", {"password": other})

    found = [event for event in events(world.http(boss), before) if event["from"] == address]
    assert [(event["what"], event["who"], event["target"], event["result"]) for event in found] == [
        ("RegisterUser", user_id, "", "OK"),
        ("Login", user_id, "", "UNAUTHENTICATED"),
        ("Login", "", "", "UNAUTHENTICATED"),
        ("Login", user_id, "", "OK"),
        ("CreateAPIKey", user_id, key, "OK"),
        ("CreateSDKJWT", user_id, key, "OK"),
        ("DeleteAPIKey", user_id, "vtk_00000000", "NOT_FOUND"),
        ("DeleteAPIKey", user_id, "", "NOT_FOUND"),
        ("DeleteAPIKey", user_id, key, "OK"),
        ("UpdateUserProfile", user_id, "", "OK"),
        ("ChangePassword", user_id, "", "OK"),
        ("Login", user_id, "", "OK"),
        ("DeleteUser", user_id, "", "OK"),
    ]
    text = world.log.read_text()
    for secret in (PASSWORD, other, "Wrong-horse-9", email, login, token, made["sdkJwt"], boss):
        assert secret not in text


def test_pages_of_events(world):
    boss = admin(world)
    for client in (world.http(boss), world.auth_http(boss)):
        first = events(client, limit=2)
        assert [event["sequence"] for event in first] == ["1", "2"]
        assert first[0]["what"] == "Start"
        [third] = events(client, after=2, limit=1)
        assert third["sequence"] == "3" and len(third["hash"]) == 64
        assert events(client, after=10**9) == []
        answer = client.get("/v1/admin/audit?limit=1001")
        assert answer.code == 400 and "1000" in answer.json["message"]
    # Who reads it is in it.
    assert events(world.http(boss), after=last_number(world) - 1)[0]["what"] == "ListAuditEvents"


def test_only_admins_read_it(world):
    login, token = world.user()
    for each, code in ((login, 403), (token, 403), (None, 401)):
        assert world.http(each).get("/v1/admin/audit").code == code
        assert world.auth_http(each).get("/v1/admin/audit").code == code


def test_a_change_shows(world, tmp_path):
    admin(world)
    code, out, errors = run("vectron", "audit", "verify", world.log)
    assert code == 0 and errors == "", errors
    last = json.loads(world.log.read_text().splitlines()[-1])
    assert last["hash"] in out and str(last["seq"]) in out
    lines = world.log.read_text().splitlines(keepends=True)
    changed = tmp_path / "audit.log"
    for text in (lines[:1] + lines[2:], [lines[0].replace('"OK"', '"no"'), *lines[1:]],
                 [lines[1], lines[0], *lines[2:]], lines[:-1] + [lines[-1][:-2]]):
        changed.write_text("".join(text))
        code, out, errors = run("vectron", "audit", "verify", changed)
        assert code == 1 and "line" in errors and out == "", (out, errors)
    assert run("vectron", "audit", "verify", tmp_path / "none")[0] == 1


def test_it_goes_on_after_kill_9(world):
    process = world.processes["authsvc"]
    for _ in range(3):
        process.kill()
        process.start().ready()
        world.wait_ready()
        admin(world)
    assert run("vectron", "audit", "verify", world.log)[0] == 0
    assert [json.loads(line)["what"] for line in world.log.read_text().splitlines()].count(
        "Start") == 4


def test_one_user_cannot_push_out_what_is_written(world):
    """The log is bounded, so what one user can write into it is too."""
    login, _ = world.user()
    client = world.auth_http(login)
    before = last_number(world)
    answers = [client.post("/v1/auth/refresh") for _ in range(400)]
    codes = [answer.code for answer in answers]
    assert codes == sorted(codes) and set(codes) == {200, 429}, codes
    assert codes.count(200) == 300
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert "300 account and key calls per minute and user" in answers[-1].json["message"]
    assert last_number(world) - before == codes.count(200)
    assert client.delete("/v1/keys/vtk_00000000").code == 429
    assert client.get("/v1/keys").code == 200  # what only reads is not limited
    assert world.auth_http(world.user()[0]).post("/v1/auth/refresh").code == 200
