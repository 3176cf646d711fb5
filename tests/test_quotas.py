"""What one user may take: requests per second and at once, points, bytes. Others go on meanwhile."""
import concurrent.futures
import time

import pytest

from support.cluster import Dev
from support.process import wait_until


@pytest.fixture(scope="module")
def world(folder):
    dev = Dev(folder, {"VECTRON_KEY_RATE_LIMIT_RPS": "25", "VECTRON_CONCURRENT_REQUESTS": "2",
                       "VECTRON_FREE_POINTS": "100", "VECTRON_FREE_BYTES": "100000000"}).start()
    yield dev
    dev.stop()


def points(first, count):
    return {"points": [{"id": f"p{first + number}", "vector": [1, number, 2, 3]}
                       for number in range(count)]}


def test_a_key_has_a_rate_of_its_own(world):
    login, token = world.user()
    other = world.create_key(login)["sdkJwt"]
    client = world.http(token)
    answers = [client.get("/v1/collections") for _ in range(80)]
    refused = [answer for answer in answers if answer.code == 429]
    assert answers[0].code == 200 and len(refused) > 20
    assert "25 requests per second and API key" in refused[0].json["message"]
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert world.http(other).get("/v1/collections").code == 200  # the user's other key
    assert world.http(login).get("/v1/collections").code == 200  # and he himself
    time.sleep(1.1)
    assert client.get("/v1/collections").code == 200


def test_requests_at_once(world):
    login, _ = world.user()  # a login token: it has no key's rate
    _, other = world.user()

    def create(number):
        return world.http(login).post("/v1/collections", {"name": f"c{number}", "dimension": 2})

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(create, range(32)))
        codes = {answer.code for answer in answers}
        assert codes == {200, 429}, codes
        refused = next(answer for answer in answers if answer.code == 429)
        assert "2 requests at once" in refused.json["message"]
        assert refused.headers["Retry-After"] == "1"
        busy = pool.submit(create, 100)
        assert world.http(other).get("/v1/collections").code == 200
        busy.result()
    # Whatever was counted was given back, failures too.
    client = world.http(login)
    for number in range(10):
        assert client.get("/v1/collections/none/status").code == 404
        assert client.get("/v1/collections").code == 200


def test_points(world):
    login, token = world.user()
    client = world.http(token)
    assert client.post("/v1/collections", {"name": "c", "dimension": 4}).code == 200
    path = "/v1/collections/c/points"
    assert client.post(path, points(0, 60)).code == 200
    refused = client.post(path, points(60, 41))
    assert refused.code == 429 and refused.json["code"] == 8
    assert "FREE allows 100 points" in refused.json["message"]
    assert "you have 60" in refused.json["message"] and refused.headers["Retry-After"] == "20"
    assert client.get(path + "/p60").code == 404  # nothing of it was stored
    assert client.post(path, points(60, 40)).code == 200
    assert client.post(path, points(100, 1)).code == 429
    assert client.get(path + "/p1").code == 200 and client.delete(path + "/p1").code == 200
    # What others keep is theirs.
    other = world.http(world.user()[1])
    assert other.post("/v1/collections", {"name": "c", "dimension": 4}).code == 200
    assert other.post(path, points(0, 100)).code == 200
    # Another plan, another quota, at once.
    assert world.auth_http(login).put("/v1/user/profile", {"plan": "PAID"}).code == 200
    wait_until(lambda: client.post(path, points(100, 50)).code == 200, seconds=2)
    assert world.auth_http(login).put("/v1/user/profile", {"plan": "FREE"}).code == 200
    wait_until(lambda: client.post(path, points(150, 1)).code == 429, seconds=2)
    # It is what is there that counts: what is deleted comes back.
    assert client.delete("/v1/collections/c").code == 200
    assert client.post("/v1/collections", {"name": "c", "dimension": 4}).code == 200
    wait_until(lambda: client.post(path, points(0, 100)).code == 200, seconds=40)


def test_bytes(tmp_path):
    dev = Dev(tmp_path, {"VECTRON_FREE_BYTES": "1000"}).start()
    try:
        client = dev.http(dev.user()[1])
        assert client.post("/v1/collections", {"name": "c", "dimension": 4}).code == 200
        refused = client.post("/v1/collections/c/points", points(0, 63))  # 1,008 bytes of vectors
        assert refused.code == 429 and "FREE allows 1000 bytes" in refused.json["message"]
        assert client.post("/v1/collections/c/points", points(0, 62)).code == 200
    finally:
        dev.stop()
