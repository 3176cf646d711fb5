"""Every method of the gateway and the auth service, over gRPC and HTTP, in each way to run them."""
import math
import struct

import grpc
import pytest

from support import api
from support.cluster import PASSWORD
from support.process import wait_until


def refused(call, code, *words):
    """The call fails with this code, and its text holds these words."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == code, caught.value.details()
    for word in words:
        assert word in caught.value.details()


def test_data_methods_over_grpc(deployment):
    _, token = deployment.user()
    client = deployment.grpc(token)
    assert client.CreateCollection(name="g", dimension=3, distance="euclidean").success
    refused(lambda: client.CreateCollection(name="g", dimension=3), grpc.StatusCode.ALREADY_EXISTS,
            "already exists")
    assert list(client.ListCollections().collections) == ["g"]

    status = client.GetCollectionStatus(name="g")
    assert (status.name, status.dimension, status.distance) == ("g", 3, "euclidean")
    wait_until(lambda: all(shard.ready for shard in client.GetCollectionStatus(name="g").shards),
               what="every shard ready")
    assert len(status.shards) >= 1
    for shard in status.shards:
        assert shard.leader_id in shard.replicas

    points = [api.vectron.Point(id=f"p{i}", vector=[i, 0, 0], payload={"n": str(i)})
              for i in range(20)]
    assert client.Upsert(collection="g", points=points).upserted == 20
    got = client.Get(collection="g", id="p7").point
    assert (got.id, list(got.vector), dict(got.payload)) == ("p7", [7, 0, 0], {"n": "7"})
    assert got.document.fields["n"].string_value == "7"

    answer = client.Search(collection="g", vector=[5.2, 0, 0], top_k=3, include_metadata=True,
                           include_vectors=True)
    assert [hit.id for hit in answer.results] == ["p5", "p6", "p4"]
    assert answer.results[0].score == pytest.approx(0.2, rel=1e-5)
    assert dict(answer.results[0].payload) == {"n": "5"}
    assert list(answer.results[0].vector) == [5, 0, 0]
    assert answer.shards_answered == answer.shards_total == len(status.shards)
    assert len(client.Search(collection="g", vector=[0, 0, 0]).results) == 10
    plain = client.Search(collection="g", vector=[0, 0, 0], top_k=1).results[0]
    assert not plain.payload and not plain.vector

    messages = list(client.SearchStream(collection="g", vector=[0, 0, 0], top_k=20))
    assert [hit.id for message in messages for hit in message.results] == [
        f"p{i}" for i in range(20)]
    assert messages[-1].shards_answered == len(status.shards)

    client.Delete(collection="g", id="p5")
    client.Delete(collection="g", id="p5")
    refused(lambda: client.Get(collection="g", id="p5"), grpc.StatusCode.NOT_FOUND, "not found")
    assert "p5" not in [hit.id for hit in client.Search(collection="g", vector=[5, 0, 0]).results]

    assert client.SubmitFeedback(
        collection="g", query="q", result_ids=["p1"],
        feedback_items=[api.vectron.FeedbackItem(result_id="p1", relevance_score=5)]).success
    assert client.DeleteCollection(name="g").success
    refused(lambda: client.DeleteCollection(name="g"), grpc.StatusCode.NOT_FOUND, "not found")
    refused(lambda: client.Search(collection="g", vector=[0, 0, 0]), grpc.StatusCode.NOT_FOUND,
            "not found")
    assert list(client.ListCollections().collections) == []


def test_data_methods_over_http(deployment):
    _, token = deployment.user()
    client = deployment.http(token)
    answer = client.post("/v1/collections", {"name": "h", "dimension": 2, "distance": "cosine"})
    assert (answer.code, answer.json) == (200, {"success": True})
    assert client.post("/v1/collections", {"name": "h", "dimension": 2}).code == 409
    assert client.get("/v1/collections").json == {"collections": ["h"]}
    status = client.get("/v1/collections/h/status").json
    assert (status["name"], status["dimension"], status["distance"]) == ("h", 2, "cosine")
    assert isinstance(status["shards"][0]["leaderId"], str)

    payload = {"name": "α", "n": 1, "ratio": 0.5, "tags": ["x", {"deep": None}], "on": True}
    answer = client.post("/v1/collections/h/points", {"points": [
        {"id": "a", "vector": [1, 0], "payload": payload}, {"id": "b", "vector": [0.1, "0.2"]}]})
    assert (answer.code, answer.json) == (200, {"upserted": 2})
    point = client.get("/v1/collections/h/points/a").json["point"]
    assert point == {"id": "a", "vector": [1, 0], "payload": payload}
    assert client.get("/v1/collections/h/points/b").json["point"]["vector"] == [0.1, 0.2]

    found = client.post("/v1/collections/h/points/search", {"vector": [1, 0], "top_k": 5}).json
    assert [hit["id"] for hit in found["results"]] == ["a", "b"]
    assert found["results"][0]["payload"] == payload
    assert found["results"][0]["score"] == pytest.approx(0, abs=1e-6)
    assert found["shardsAnswered"] == found["shardsTotal"] == len(status["shards"])
    bare = client.post("/v1/collections/h/points/search",
                       {"vector": [1, 0], "includeMetadata": False}).json
    assert bare["results"][0]["payload"] == {}

    assert client.delete("/v1/collections/h/points/a").json == {}
    gone = client.get("/v1/collections/h/points/a")
    assert gone.code == 404 and gone.json["code"] == 5 and "not found" in gone.json["message"]
    assert gone.json["details"] == []
    answer = client.post("/v1/feedback", {"collection": "h", "query": "q", "feedbackItems": [
        {"resultId": "b", "relevanceScore": 4, "clicked": True}]})
    assert answer.code == 200 and answer.json["success"] and answer.json["feedbackId"]
    assert client.delete("/v1/collections/h").json == {"success": True}
    assert client.get("/v1/collections/h/status").code == 404


def test_both_faces_show_one_payload(deployment):
    """What one side stores the other shows: the string map and the document are two views."""
    _, token = deployment.user()
    over_grpc, over_http = deployment.grpc(token), deployment.http(token)
    over_grpc.CreateCollection(name="v", dimension=1)
    over_http.post("/v1/collections/v/points", {"points": [
        {"id": "x", "vector": [1], "payload": {"s": "text", "n": 3, "f": 2.5, "l": [1, 2]}}]})
    point = over_grpc.Get(collection="v", id="x").point
    assert dict(point.payload) == {"s": "text", "n": "3", "f": "2.5", "l": "[1,2]"}
    assert point.document.fields["f"].number_value == 2.5
    document = api.vectron.Point(id="y", vector=[1])
    document.document.update({"n": 7, "nested": {"a": [True, None]}})
    over_grpc.Upsert(collection="v", points=[document])
    assert over_http.get("/v1/collections/v/points/y").json["point"]["payload"] == {
        "n": 7, "nested": {"a": [True, None]}}
    both = api.vectron.Point(id="z", vector=[1], payload={"a": "b"})
    both.document.update({"a": "b"})
    refused(lambda: over_grpc.Upsert(collection="v", points=[both]),
            grpc.StatusCode.INVALID_ARGUMENT, "payload", "document")


def test_auth_methods_over_http(deployment):
    email, login = deployment.register()
    client = deployment.auth_http(login)
    profile = client.get("/v1/user/profile").json["user"]
    assert profile["email"] == email and profile["plan"] == "FREE"
    assert int(profile["createdAt"]) > 1_700_000_000

    made = client.post("/v1/keys", {"name": "one", "role": "reader"}).json
    assert set(made) == {"keyInfo", "sdkJwt"}
    prefix = made["keyInfo"]["keyPrefix"]
    listed = client.get("/v1/keys").json["keys"]
    assert [(key["keyPrefix"], key["name"], key["role"]) for key in listed] == [
        (prefix, "one", "reader")]
    again = client.post("/v1/sdk-jwt", {"apiKeyId": prefix})
    assert again.code == 200 and again.json["sdkJwt"].count(".") == 2
    assert deployment.http(again.json["sdkJwt"]).get("/v1/collections").code == 200
    assert client.delete(f"/v1/keys/{prefix}").json == {"success": True}
    assert client.delete(f"/v1/keys/{prefix}").code == 404

    changed = client.put("/v1/user/profile", {"plan": "PAID"}).json
    assert changed["user"]["plan"] == "PAID" and changed["jwtToken"]
    fresh = client.post("/v1/auth/refresh").json
    assert fresh["jwtToken"] and int(fresh["expiresAt"]) > 1_700_000_000
    wrong = client.post("/v1/user/password", {"oldPassword": "Wrong-horse-7",
                                              "newPassword": "Better-horse-8"})
    assert wrong.code == 403
    assert client.post("/v1/user/password", {"old_password": PASSWORD,
                                             "new_password": "Better-horse-8"}).json == {
        "success": True}
    assert client.get("/v1/user/profile").code == 401
    person = deployment.auth_http(headers={"x-forwarded-for": api.fresh_address()})
    answer = person.post("/v1/users/login", {"email": email.upper(), "password": "Better-horse-8"})
    assert answer.code == 200 and answer.json["user"]["email"] == email
    client = deployment.auth_http(answer.json["jwtToken"])
    assert client.post("/v1/user/delete", {"password": "Better-horse-8"}).json == {"success": True}
    assert client.get("/v1/user/profile").code == 401


def test_auth_methods_over_grpc(deployment):
    # Its own address, so that the limits per address of other tests do not meet it.
    anyone = deployment.auth_grpc(metadata=[("x-forwarded-for", api.fresh_address())])
    email = f"grpc-{api.fresh_address()}@example.com"
    user = anyone.RegisterUser(email=f"  {email.upper()} ", password=PASSWORD).user
    assert user.email == email and user.plan == api.auth.FREE
    refused(lambda: anyone.RegisterUser(email=email, password=PASSWORD),
            grpc.StatusCode.ALREADY_EXISTS, "already exists")
    refused(lambda: anyone.Login(email=email, password="Wrong-horse-7"),
            grpc.StatusCode.UNAUTHENTICATED, "invalid email or password")
    refused(lambda: anyone.Login(email="nobody@example.com", password="Wrong-horse-7"),
            grpc.StatusCode.UNAUTHENTICATED, "invalid email or password")
    answer = anyone.Login(email=email, password=PASSWORD)
    client = deployment.auth_grpc(answer.jwt_token,
                                  metadata=[("x-forwarded-for", api.fresh_address())])
    assert client.GetUserProfile().user.id == user.id
    made = client.CreateAPIKey(name="k", expires_in_seconds=3600)
    assert made.key_info.role == "owner" and made.key_info.user_id == user.id
    assert 3500 < made.key_info.expires_at - made.key_info.created_at <= 3600
    assert [key.key_prefix for key in client.ListAPIKeys().keys] == [made.key_info.key_prefix]
    assert client.CreateSDKJWT(api_key_id=made.key_info.key_prefix).sdk_jwt.count(".") == 2
    refused(lambda: client.CreateSDKJWT(api_key_id="vtk_00000000"), grpc.StatusCode.NOT_FOUND,
            "not found")
    refused(lambda: client.UpdateUserProfile(plan=0), grpc.StatusCode.INVALID_ARGUMENT, "plan")
    assert client.UpdateUserProfile(plan=api.auth.PAID).jwt_token
    assert client.RefreshToken().expires_at > 0
    refused(lambda: client.ValidateAPIKey(full_key="x"), grpc.StatusCode.PERMISSION_DENIED)
    refused(lambda: client.GetAuthDetailsForSDK(api_key_id="x"),
            grpc.StatusCode.PERMISSION_DENIED)
    assert client.DeleteAPIKey(key_prefix=made.key_info.key_prefix).success
    assert client.ChangePassword(old_password=PASSWORD, new_password="Better-horse-8").success
    refused(client.GetUserProfile, grpc.StatusCode.UNAUTHENTICATED)


def test_gateway_forwards_the_auth_routes(deployment):
    _, login = deployment.register()
    client = deployment.http(login)
    assert client.get("/v1/user/profile").json["user"]["plan"] == "FREE"
    made = client.post("/v1/keys", {"name": "via gateway"})
    assert made.code == 200
    assert deployment.grpc(made.json["sdkJwt"]).ListCollections() is not None
    changed = client.put("/v1/user/profile", {"plan": "PAID"})
    assert changed.code == 200 and changed.json["jwtToken"]
    wrong = client.post("/v1/users/login", {"email": "nobody@example.com", "password": "x"})
    assert wrong.code == 401 and "invalid email or password" in wrong.json["message"]


def test_get_is_bit_for_bit(deployment):
    _, token = deployment.user()
    client = deployment.grpc(token)
    values = [0.1, -0.0, 1e-45, 3.4028235e38, -1.17549435e-38, math.pi]
    for distance in ("cosine", "euclidean", "dot"):
        client.CreateCollection(name=distance, dimension=len(values), distance=distance)
        client.Upsert(collection=distance, points=[api.vectron.Point(id="p", vector=values)])
        got = client.Get(collection=distance, id="p").point.vector
        assert struct.pack("<6f", *got) == struct.pack("<6f", *values)


def test_health_and_reflection(deployment):
    for address, services in ((deployment.grpc_address, ["vectron.v1.VectronService"]),
                              (deployment.auth_grpc_address, ["vectron.auth.v1.AuthService"])):
        health = api.Grpc(address, api.health, "Health",
                          root_certificate=deployment.root_certificate)
        for name in ("", *services):
            assert health.Check(service=name).status == 1
        refused(lambda h=health: h.Check(service="no.Such"), grpc.StatusCode.NOT_FOUND)
        for module in (api.reflection, api.reflection_v1alpha):
            listing = list_services(address, module, deployment.root_certificate)
            assert set(services) <= set(listing)


def list_services(address, module, root_certificate):
    client = api.Grpc(address, module, "ServerReflection", root_certificate=root_certificate)
    path = f"/{client.descriptor.full_name}/ServerReflectionInfo"
    call = client.channel.stream_stream(
        path, request_serializer=module.ServerReflectionRequest.SerializeToString,
        response_deserializer=module.ServerReflectionResponse.FromString)
    requests = [module.ServerReflectionRequest(list_services="*"),
                module.ServerReflectionRequest(
                    file_containing_symbol="vectron.v1.VectronService")]
    answers = list(call(iter(requests), timeout=10))
    assert len(answers) == 2
    return [service.name for service in answers[0].list_services_response.service]


def test_a_reflection_stream_is_bounded(deployment):
    """It needs no token, so it must not go on for ever."""
    module = api.reflection
    client = api.Grpc(deployment.grpc_address, module, "ServerReflection",
                      root_certificate=deployment.root_certificate)
    call = client.channel.stream_stream(
        f"/{client.descriptor.full_name}/ServerReflectionInfo",
        request_serializer=module.ServerReflectionRequest.SerializeToString,
        response_deserializer=module.ServerReflectionResponse.FromString)
    request = module.ServerReflectionRequest(list_services="*")
    assert len(list(call(iter([request] * 1000), timeout=20))) == 1000
    refused(lambda: list(call(iter([request] * 1001), timeout=20)),
            grpc.StatusCode.RESOURCE_EXHAUSTED, "1000")
    large = module.ServerReflectionRequest(file_by_filename="x" * (64 << 10))
    refused(lambda: list(call(iter([large]), timeout=20)),
            grpc.StatusCode.RESOURCE_EXHAUSTED, str(large.ByteSize()), "65536")


def test_gzip_and_duplicate_authorization(deployment):
    _, token = deployment.user()
    client = deployment.grpc(token)
    client.CreateCollection(name="z", dimension=500, distance="dot")
    points = [api.vectron.Point(id=str(i), vector=[1.0] * 500) for i in range(50)]
    assert client.Upsert(collection="z", points=points,
                         compression=grpc.Compression.Gzip).upserted == 50
    # The first authorization counts.
    assert list(client.ListCollections(
        metadata=[("authorization", "Bearer nonsense")]).collections) == ["z"]


def test_unknown_paths_and_verbs(deployment):
    client = deployment.http()
    missing = client.get("/v1/nothing")
    assert missing.code == 404 and missing.json["code"] == 5
    wrong = client.request("PATCH", "/v1/collections", b"{}")
    assert wrong.code == 405 and "GET" in wrong.headers["Allow"] and "POST" in wrong.headers["Allow"]
    assert client.request("OPTIONS", "/v1/collections").code == 204
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.") and "/v1/collections" in document["paths"]
    page = client.get("/docs")
    assert page.code == 200 and b"/v1/collections" in page.body
    assert b"vectron_requests_total" in client.get("/metrics").body
    for path in ("/healthz", "/livez", "/readyz"):
        assert client.get(path).code == 200


def test_a_search_needs_no_luck_right_after_a_write(deployment):
    """Every acknowledged write is seen by the next read, whichever face it went through."""
    _, token = deployment.user()
    client, web = deployment.grpc(token), deployment.http(token)
    client.CreateCollection(name="now", dimension=2, distance="euclidean")
    for i in range(200):
        client.Upsert(collection="now", points=[api.vectron.Point(id="it", vector=[i, 0])])
        hit = client.Search(collection="now", vector=[i, 0], top_k=1).results[0]
        assert (hit.id, hit.score) == ("it", 0)
    assert web.get("/v1/collections/now/points/it").json["point"]["vector"] == [199, 0]
