"""Wrong input, field by field: the right code, a text that names field and limit, nothing stored."""
import math

import grpc
import pytest

from support import api

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def client(dev):
    _, token = dev.user()
    client = dev.grpc(token)
    client.CreateCollection(name="c", dimension=3, distance="cosine")
    client.CreateCollection(name="e", dimension=3, distance="euclidean")
    client.Upsert(collection="c", points=[api.vectron.Point(id="kept", vector=[1, 2, 3])])
    return client


@pytest.fixture(scope="module")
def web(dev):
    _, token = dev.user()
    web = dev.http(token)
    web.post("/v1/collections", {"name": "c", "dimension": 3})
    return web


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("fields, words", [
    ({"name": "", "dimension": 3}, ["name"]),
    ({"name": "a" * 129, "dimension": 3}, ["name", "128"]),
    ({"name": "with space", "dimension": 3}, ["name"]),
    ({"name": "sl/ash", "dimension": 3}, ["name"]),
    ({"name": "ünï", "dimension": 3}, ["name"]),
    ({"name": "d", "dimension": 0}, ["dimension", "65535"]),
    ({"name": "d", "dimension": -1}, ["dimension"]),
    ({"name": "d", "dimension": 65536}, ["dimension", "65535"]),
    ({"name": "d", "dimension": 3, "distance": "manhattan"}, ["distance", "manhattan"]),
])
def test_create_collection(client, fields, words):
    code, text = refusal(lambda: client.CreateCollection(**fields))
    assert code == INVALID
    for word in words:
        assert word in text
    assert sorted(client.ListCollections().collections) == ["c", "e"]


def point(**fields):
    return api.vectron.Point(**{"id": "bad", "vector": [1, 2, 3], **fields})


@pytest.mark.parametrize("bad, words", [
    (point(vector=[1, 2]), ["bad", "dimension", "2", "3"]),
    (point(vector=[]), ["bad", "dimension"]),
    (point(vector=[1, math.nan, 3]), ["bad", "vector"]),
    (point(vector=[1, math.inf, 3]), ["bad", "vector"]),
    (point(vector=[1, 2, -math.inf]), ["bad", "vector"]),
    (point(vector=[0, 0, 0]), ["bad", "zero"]),
    (point(id=""), ["id", "empty"]),
    (point(id="x" * 513), ["id", "512"]),
    (point(payload={"k": "v" * (1 << 20)}), ["payload", "1048576"]),
])
def test_upsert_checks_the_whole_request_first(client, bad, words):
    good = api.vectron.Point(id="good", vector=[1, 1, 1])
    code, text = refusal(lambda: client.Upsert(collection="c", points=[good, bad]))
    assert code == INVALID, text
    for word in words:
        assert word in text
    assert refusal(lambda: client.Get(collection="c", id="good"))[0] == grpc.StatusCode.NOT_FOUND


def test_deep_documents_are_refused(client):
    deep = point(id="deep")
    value = deep.document.fields["a"]
    for _ in range(32):
        value = value.struct_value.fields["a"]
    value.string_value = "bottom"
    code, text = refusal(lambda: client.Upsert(collection="c", points=[deep]))
    assert code == INVALID and "32" in text and "payload" in text


def test_what_is_allowed_at_the_limits(client):
    long = "i" * 512
    client.Upsert(collection="c", points=[point(id=long)])
    assert client.Get(collection="c", id=long).point.id == long
    client.Upsert(collection="e", points=[point(id="zero", vector=[0, 0, 0])])
    assert client.Upsert(collection="c", points=[]).upserted == 0
    twice = [point(id="t", vector=[1, 0, 0]), point(id="t", vector=[0, 1, 0])]
    assert client.Upsert(collection="c", points=twice).upserted == 2
    assert list(client.Get(collection="c", id="t").point.vector) == [0, 1, 0]
    tiny = [1e-40, 0, 0]
    client.Upsert(collection="c", points=[point(id="tiny", vector=tiny)])
    hit = client.Search(collection="c", vector=[1, 0, 0], top_k=1).results[0]
    assert hit.id == "tiny" and hit.score == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fields, words", [
    ({"vector": [1, 2]}, ["vector", "dimension"]),
    ({"vector": []}, ["vector"]),
    ({"vector": [1, math.nan, 0]}, ["vector"]),
    ({"vector": [0, 0, 0]}, ["zero"]),
    ({"vector": [1, 2, 3], "top_k": 10001}, ["top_k", "10000"]),
    ({"vector": [1, 2, 3], "ef": 65537}, ["ef", "65536"]),
])
def test_search(client, fields, words):
    code, text = refusal(lambda: client.Search(collection="c", **fields))
    assert code == INVALID
    for word in words:
        assert word in text


def test_feedback(client):
    item = api.vectron.FeedbackItem
    code, text = refusal(lambda: client.SubmitFeedback(collection="c", query="q"))
    assert code == INVALID and "feedback_items" in text
    code, text = refusal(lambda: client.SubmitFeedback(
        collection="c", feedback_items=[item(result_id="a", relevance_score=6)]))
    assert code == INVALID and "relevance_score" in text
    code, _ = refusal(lambda: client.SubmitFeedback(
        collection="absent", feedback_items=[item(result_id="a", relevance_score=1)]))
    assert code == grpc.StatusCode.NOT_FOUND


def test_missing_things(client):
    for call in (lambda: client.Get(collection="absent", id="x"),
                 lambda: client.Upsert(collection="absent", points=[point()]),
                 lambda: client.Delete(collection="absent", id="x"),
                 lambda: client.GetCollectionStatus(name="absent"),
                 lambda: client.Get(collection="c", id="absent")):
        code, text = refusal(call)
        assert code == grpc.StatusCode.NOT_FOUND and "not found" in text


def test_huge_scores_are_finite(client):
    client.CreateCollection(name="huge", dimension=2, distance="euclidean")
    big = 3.4e38
    client.Upsert(collection="huge", points=[
        api.vectron.Point(id="far", vector=[-big, -big])])
    score = client.Search(collection="huge", vector=[big, big]).results[0].score
    assert score == pytest.approx(3.4028234663852886e38)
    client.DeleteCollection(name="huge")


@pytest.mark.parametrize("path, body, words", [
    ("/v1/collections", b"{", ["JSON"]),
    ("/v1/collections", b"[]", ["object"]),
    ("/v1/collections", b'{"name": "x", "dimensions": 3}', ["dimensions"]),
    ("/v1/collections", b'{"name": 7, "dimension": 3}', ["name"]),
    ("/v1/collections", b'{"name": "x", "dimension": "three"}', ["dimension"]),
    ("/v1/collections", b'{"name": "x", "dimension": 3.5}', ["dimension"]),
    ("/v1/collections", b'{"name": "x", "dimension": 99999999999}', ["dimension"]),
    ("/v1/collections/c/points", b'{"points": [{"id": "a", "vector": [1, 2, "x"]}]}', ["vector"]),
    ("/v1/collections/c/points", b'{"points": [{"id": "a", "vector": [1, 2, 3], "color": 1}]}',
     ["color"]),
    ("/v1/collections/c/points",
     b'{"points": [{"id": "a", "vector": [1, 2, 3], "payload": [1]}]}', ["payload"]),
    ("/v1/collections/c/points", b'{"points": [{"id": "a", "vector": [1, 2, 3], "document": {}}]}',
     ["document"]),
    ("/v1/collections/c/points", b'{"points": [{"id": "a", "vector": [1, 2, "NaN"]}]}', ["vector"]),
    ("/v1/collections/c/points", b'{"points": [{"id": "\xff", "vector": [1, 2, 3]}]}', []),
    ("/v1/collections/c/points",
     b'{"points": [{"id": "a", "vector": [1, 2, 3], "payload": ' + b'{"a":' * 33 + b"1"
     + b"}" * 33 + b"}]}", ["payload", "32"]),
    ("/v1/collections/c/points", b"[" * 100_000, []),
])
def test_json(web, path, body, words):
    answer = web.request("POST", path, body, headers={"content-type": "application/json"})
    assert answer.code == 400, answer.body
    assert answer.json["code"] == 3 and answer.json["details"] == []
    for word in words:
        assert word in answer.json["message"]
    assert web.get("/v1/collections").json == {"collections": ["c"]}


def test_64_bit_numbers_enums_and_names(dev):
    _, login = dev.register()
    web = dev.auth_http(login)
    for plan in ("PAID", 1, "FREE", 2):
        assert web.put("/v1/user/profile", {"plan": plan}).code == 200
    assert web.put("/v1/user/profile", {"plan": "GOLD"}).code == 400
    for seconds in (3600, "3600"):
        made = web.post("/v1/keys", {"name": "k", "expires_in_seconds": seconds})
        assert made.code == 200 and isinstance(made.json["keyInfo"]["expiresAt"], str)
    assert web.post("/v1/keys", {"name": "k", "expiresInSeconds": -1}).code == 400
    assert web.post("/v1/keys", {"name": "n" * 129}).code == 400
    assert web.post("/v1/keys", {"name": "k", "role": "king"}).code == 400


def test_a_path_variable_wins_over_the_body(web):
    web.post("/v1/collections/c/points", {"collection": "other", "points": [
        {"id": "pv", "vector": [1, 2, 3]}]})
    assert web.get("/v1/collections/c/points/pv").code == 200
    assert web.post("/v1/collections/c/points", {"points": [
        {"id": "a b/c%", "vector": [1, 2, 3]}]}).code == 200
    assert web.get("/v1/collections/c/points/a%20b%2Fc%25").json["point"]["id"] == "a b/c%"


@pytest.mark.parametrize("email, password", [
    ("", "Correct-horse-7"), ("nobody", "Correct-horse-7"), ("a b@example.com", "Correct-horse-7"),
    ("x" * 250 + "@example.com", "Correct-horse-7"), ("weak@example.com", "short1A"),
    ("weak@example.com", "alllowercaseletters"), ("weak@example.com", "lower1234"),
    ("weak@example.com", "Aa1" * 43),
])
def test_registration(dev, email, password):
    web = dev.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    answer = web.post("/v1/users/register", {"email": email, "password": password})
    assert answer.code == 400 and answer.json["code"] == 3
    assert ("email" in answer.json["message"]) or ("password" in answer.json["message"])


def test_a_request_over_the_limit(dev, client):
    size = 270_000_000
    code, text = refusal(lambda: client.Upsert(collection="c", timeout=120, points=[
        point(payload={"k": "v" * size})]))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "268435456" in text
