"""Who may do what: the two kinds of token, roles, bound keys, owners, deletion, limits."""
import base64
import hashlib
import hmac
import json
import time

import grpc
import pytest

from support import api
from support.cluster import PASSWORD
from support.process import wait_until

DATA_CALLS = [
    ("GET", "/v1/collections", None), ("POST", "/v1/collections", {"name": "x", "dimension": 2}),
    ("GET", "/v1/collections/c/status", None), ("DELETE", "/v1/collections/absent", None),
    ("POST", "/v1/collections/c/points", {"points": []}), ("GET", "/v1/collections/c/points/a", None),
    ("DELETE", "/v1/collections/c/points/a", None),
    ("POST", "/v1/collections/c/points/search", {"vector": [1, 1]}),
    ("POST", "/v1/feedback", {"collection": "c"}),
]
MANAGEMENT = ["/v1/system/health", "/v1/admin/stats", "/v1/admin/workers", "/v1/admin/collections",
              "/v1/alerts"]
ACCOUNT_CALLS = [
    ("GET", "/v1/user/profile", None), ("PUT", "/v1/user/profile", {"plan": "PAID"}),
    ("GET", "/v1/keys", None), ("POST", "/v1/keys", {"name": "n"}),
    ("DELETE", "/v1/keys/vtk_00000000", None), ("POST", "/v1/sdk-jwt", {"apiKeyId": "x"}),
    ("POST", "/v1/auth/refresh", {}), ("POST", "/v1/user/delete", {"password": PASSWORD}),
    ("POST", "/v1/user/password", {"oldPassword": PASSWORD, "newPassword": "Other-horse-9"}),
]


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def forge(token, secret=b"x" * 40, header=None, **changes):
    """The token with other claims, signed by somebody who does not know the secret."""
    def encode(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    head = encode(header or {"alg": "HS256", "typ": "JWT"})
    body = encode({**claims(token), **changes})
    signature = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def tampered(token):
    head, body, signature = token.split(".")
    flipped = "A" if signature[5] != "A" else "B"
    return f"{head}.{body}.{signature[:5]}{flipped}{signature[6:]}"


def unsigned(token):
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


@pytest.mark.parametrize("verb, path, body", DATA_CALLS + ACCOUNT_CALLS +
                         [("GET", path, None) for path in MANAGEMENT])
def test_nothing_without_a_token(deployment, verb, path, body):
    web = deployment.http()
    answer = web.request(verb, path, body)
    assert answer.code == 401 and answer.json["code"] == 16
    assert "missing authorization" in answer.json["message"]
    assert "Bearer" in answer.headers["WWW-Authenticate"]
    for token in ("garbage", "a.b.c", "e30.e30.e30"):
        answer = deployment.http(token).request(verb, path, body)
        assert answer.code == 401 and "invalid or expired token" in answer.json["message"]


def test_forged_tokens_open_nothing(deployment):
    login, sdk = deployment.user()
    for token in (login, sdk):
        bad = [tampered(token), unsigned(token), forge(token), forge(token, exp=1),
               forge(token, header={"alg": "HS512", "typ": "JWT"}), token + "x", token[:-1]]
        for forged in bad:
            answer = deployment.http(forged).get("/v1/collections")
            assert answer.code == 401 and "invalid or expired token" in answer.json["message"]
            answer = deployment.auth_http(forged).get("/v1/user/profile")
            assert answer.code == 401
            with pytest.raises(grpc.RpcError) as caught:
                deployment.grpc(forged).ListCollections()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_each_kind_in_its_place(deployment):
    login, sdk = deployment.user()
    deployment.http(sdk).post("/v1/collections", {"name": "c", "dimension": 2})
    for verb, path, body in DATA_CALLS:
        for token in (login, sdk):
            assert deployment.http(token).request(verb, path, body).code in (200, 400, 404, 409)
    for web in (deployment.http(sdk), deployment.auth_http(sdk)):
        for verb, path, body in ACCOUNT_CALLS:
            answer = web.request(verb, path, body)
            assert answer.code == 403 and "login token" in answer.json["message"], (path, answer.body)
    for path in MANAGEMENT:
        answer = deployment.http(sdk).get(path)
        assert answer.code == 403 and "login token" in answer.json["message"]
        answer = deployment.http(login).get(path)
        assert answer.code == 403 and "admin" in answer.json["message"]
    with pytest.raises(grpc.RpcError) as caught:
        deployment.grpc(login).ListCollections()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "SDK token" in caught.value.details()


def test_what_the_tokens_say(deployment):
    email, login = deployment.register()
    made = deployment.create_key(login, name="named", role="writer", collections=["only"])
    said = claims(login)
    assert {"typ", "iss", "aud", "sub", "plan", "role", "jti", "iat", "exp"} <= set(said)
    assert (said["typ"], said["iss"], said["aud"], said["plan"], said["role"]) == (
        "login", "vectron", "console", "FREE", "user")
    assert said["exp"] - said["iat"] == 24 * 3600
    said = claims(made["sdkJwt"])
    assert (said["typ"], said["iss"], said["aud"], said["plan"], said["role"]) == (
        "sdk", "vectron", "api", "FREE", "writer")
    assert said["key_id"] == made["keyInfo"]["keyPrefix"] and said["key_name"] == "named"
    assert said["collections"] == ["only"] and said["exp"] - said["iat"] == 90 * 24 * 3600
    assert said["sub"] == claims(login)["sub"]
    # The key itself is in there, but nobody can read it.
    assert said["api_key"] and said["key_id"] not in said["api_key"]
    everything = json.dumps(made) + made["sdkJwt"] + json.dumps(said)
    assert f"{said['key_id']}_" not in everything
    assert email


def test_roles(deployment):
    login, owner = deployment.user()
    writer, reader = (deployment.create_key(login, role=role)["sdkJwt"]
                      for role in ("writer", "reader"))
    owner, writer, reader = (deployment.grpc(token) for token in (owner, writer, reader))
    owner.CreateCollection(name="r", dimension=2)
    point = api.vectron.Point(id="a", vector=[1, 1])
    assert writer.Upsert(collection="r", points=[point]).upserted == 1
    assert reader.Get(collection="r", id="a").point.id == "a"
    assert reader.Search(collection="r", vector=[1, 1]).results[0].id == "a"
    for call, needed in ((lambda: reader.Upsert(collection="r", points=[point]), "writer"),
                         (lambda: reader.Delete(collection="r", id="a"), "writer"),
                         (lambda: reader.CreateCollection(name="q", dimension=2), "owner"),
                         (lambda: writer.CreateCollection(name="q", dimension=2), "owner"),
                         (lambda: writer.DeleteCollection(name="r"), "owner")):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert needed in caught.value.details()


def test_bound_keys_and_owners(deployment):
    login, sdk = deployment.user()
    owner = deployment.grpc(sdk)
    for name in ("mine", "other"):
        owner.CreateCollection(name=name, dimension=2)
    bound = deployment.grpc(
        deployment.create_key(login, collections=["mine", "later"])["sdkJwt"])
    assert list(bound.ListCollections().collections) == ["mine"]
    assert bound.CreateCollection(name="later", dimension=2).success
    assert sorted(bound.ListCollections().collections) == ["later", "mine"]
    stranger = deployment.grpc(deployment.user()[1])
    assert list(stranger.ListCollections().collections) == []
    for client in (bound, stranger):
        for call in (lambda c: c.GetCollectionStatus(name="other"),
                     lambda c: c.Search(collection="other", vector=[1, 1]),
                     lambda c: c.Get(collection="other", id="x"),
                     lambda c: c.Upsert(collection="other", points=[
                         api.vectron.Point(id="x", vector=[1, 1])]),
                     lambda c: c.Delete(collection="other", id="x"),
                     lambda c: c.DeleteCollection(name="other")):
            with pytest.raises(grpc.RpcError) as caught:
                call(client)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    # Names are unique per user, not in the whole.
    assert stranger.CreateCollection(name="mine", dimension=7).success
    assert owner.GetCollectionStatus(name="mine").dimension == 2


def test_a_deleted_key_stops_within_a_second(deployment):
    login, _ = deployment.register()
    _, login = deployment.register()
    made = deployment.create_key(login)
    client = deployment.grpc(made["sdkJwt"])
    client.ListCollections()
    prefix = made["keyInfo"]["keyPrefix"]
    assert deployment.auth_http(login).delete(f"/v1/keys/{prefix}").code == 200
    deleted = time.monotonic()

    def is_refused():
        try:
            client.ListCollections()
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "API key revoked" in error.details()
            return True
        return False

    wait_until(is_refused, seconds=2, what="the refusal of the deleted key")
    assert time.monotonic() - deleted < 1


def test_a_deleted_users_tokens_stop_within_a_second(deployment):
    _, login = deployment.register()
    sdk = deployment.create_key(login)["sdkJwt"]
    assert deployment.http(sdk).get("/v1/collections").code == 200
    assert deployment.http(login).get("/v1/collections").code == 200
    answer = deployment.auth_http(login).post("/v1/user/delete", {"password": PASSWORD})
    assert answer.code == 200
    for token in (sdk, login):
        wait_until(lambda t=token: deployment.http(t).get("/v1/collections").code == 401,
                   seconds=1, what="the refusal of the deleted user")


def test_a_deleted_users_collections_go(cluster):
    """Also when the auth service dies right after it has said that the user is deleted."""
    driver = api.Grpc(cluster.pd_address, api.placementdriver, "PlacementService")
    _, kept = cluster.user()
    cluster.grpc(kept).CreateCollection(name="kept", dimension=2)
    login, sdk = cluster.user()
    client = cluster.grpc(sdk)
    for i in range(30):
        client.CreateCollection(name=f"c{i}", dimension=2)
    owner = claims(login)["sub"]

    def names():
        return driver.ListCollections().collections

    assert sum(name.startswith(f"{owner}/") for name in names()) == 30
    answer = cluster.auth_http(login).post("/v1/user/delete", {"password": PASSWORD})
    assert answer.code == 200
    authsvc = cluster.processes["authsvc"]
    authsvc.kill()
    authsvc.start()
    authsvc.ready()
    wait_until(lambda: not any(name.startswith(f"{owner}/") for name in names()),
               what="the end of the deleted user's collections")
    assert f"{claims(kept)['sub']}/kept" in names()
    wait_until(lambda: cluster.http(kept).get("/v1/collections").code == 200,
               what="the gateway's connection to the auth service")
    assert cluster.http(kept).get("/v1/collections").json["collections"] == ["kept"]


def test_a_collection_made_behind_the_deletion_goes_too(cluster):
    """A gateway that has not heard of the deletion yet may make one more."""
    driver = api.Grpc(cluster.pd_address, api.placementdriver, "PlacementService")
    _, login = cluster.register()
    owner = claims(login)["sub"]
    answer = cluster.auth_http(login).post("/v1/user/delete", {"password": PASSWORD})
    assert answer.code == 200
    driver.CreateCollection(name=f"{owner}/late", dimension=2)
    wait_until(lambda: f"{owner}/late" not in driver.ListCollections().collections,
               what="the end of the late collection")


def test_key_limits_by_plan(deployment):
    _, login = deployment.register()
    web = deployment.auth_http(login)
    for i in range(20):
        deployment.create_key(login, name=f"k{i}")
    answer = deployment.auth_http(login, headers={"x-forwarded-for": api.fresh_address()}).post(
        "/v1/keys", {"name": "one too many"})
    assert answer.code == 429 and answer.json["code"] == 8 and "20" in answer.json["message"]
    assert len(web.get("/v1/keys").json["keys"]) == 20


def test_limits_per_address(deployment):
    person = deployment.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    codes = [person.post("/v1/users/login", {"email": "x@example.com", "password": "y"}).code
             for _ in range(6)]
    assert codes == [401] * 5 + [429]
    limited = person.post("/v1/users/login", {"email": "x@example.com", "password": "y"})
    assert int(limited.headers["Retry-After"]) >= 1 and "5" in limited.json["message"]
    other = deployment.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    assert other.post("/v1/users/login", {"email": "x@example.com", "password": "y"}).code == 401


def test_one_of_two_registrations_wins(deployment):
    import concurrent.futures
    email = f"race-{api.fresh_address()}@example.com"

    def register(_):
        return deployment.auth_http(headers={"x-forwarded-for": api.fresh_address()}).post(
            "/v1/users/register", {"email": email, "password": PASSWORD}).code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(register, range(8)))
    assert codes == [200] + [409] * 7


def test_no_raw_key_in_any_store_or_log(dev):
    """The files and the output of the server, searched for the key part of every token."""
    login, sdk = dev.user()
    prefix = claims(sdk)["key_id"]
    needle = f"{prefix}_".encode()
    for path in (dev.folder / "data").rglob("*"):
        if path.is_file():
            assert needle not in path.read_bytes(), path
    assert needle.decode() not in dev.process.output()
    assert login


def test_management_for_the_admin(dev):
    email, password = (dev.folder / "data" / "admin-login").read_text().split()
    person = dev.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    login = person.post("/v1/users/login", {"email": email, "password": password}).json["jwtToken"]
    admin = dev.http(login)
    health = admin.get("/v1/system/health").json
    assert health["status"] == "healthy", health
    assert {"name", "status", "address", "responseMs", "lastCheck", "error"} <= set(
        health["services"][0])
    assert health["totals"]["workers"] == 1
    stats = admin.get("/v1/admin/stats").json
    assert stats["requests"] > 0 and {"mean", "p50", "p95", "p99"} <= set(stats["latencyMs"])
    workers = admin.get("/v1/admin/workers").json["workers"]
    assert len(workers) == 1 and workers[0]["healthy"]
    assert "collections" in admin.get("/v1/admin/collections").json
    assert "alerts" in admin.get("/v1/alerts").json


def test_rate_limit_per_user(folder):
    from support.cluster import Dev
    (folder / "limited").mkdir()
    dev = Dev(folder / "limited", {"RATE_LIMIT_RPS": "20"}).start()
    try:
        client = dev.http(dev.user()[1])
        answers = [client.get("/v1/collections") for _ in range(60)]
        limited = [answer for answer in answers if answer.code == 429]
        assert limited and answers[0].code == 200
        assert "20" in limited[0].json["message"] and int(limited[0].headers["Retry-After"]) >= 1
        assert dev.http(dev.user()[1]).get("/v1/collections").code == 200
    finally:
        dev.stop()


def test_a_deleted_users_feedback_goes(cluster):
    """At once, and what was missed while the gateway was away when it comes back."""
    import sqlite3
    path = cluster.folder / "feedback.db"

    def users():
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return {row[0] for row in database.execute("SELECT DISTINCT user_id FROM feedback")}

    people = []
    for _ in range(3):
        _, login = cluster.register()
        client = cluster.http(cluster.create_key(login)["sdkJwt"])
        assert client.post("/v1/collections", {"name": "c", "dimension": 2}).code == 200
        assert client.post("/v1/feedback", {"collection": "c", "query": "q", "feedbackItems": [
            {"resultId": "a", "relevanceScore": 3}]}).code == 200
        people.append((claims(login)["sub"], login))
    (first, first_login), (second, second_login), (kept, _) = people
    assert {first, second, kept} <= users()

    def delete(login):
        answer = cluster.auth_http(login).post("/v1/user/delete", {"password": PASSWORD})
        assert answer.code == 200, answer.body

    delete(first_login)
    wait_until(lambda: first not in users(), what="the end of the deleted user's feedback")
    assert {second, kept} <= users()
    gateway = cluster.processes["apigateway"]
    assert gateway.stop() == 0
    delete(second_login)
    assert second in users()
    gateway.start().ready()
    cluster.wait_ready()
    wait_until(lambda: second not in users(), what="the end of feedback that was left behind")
    assert kept in users()
