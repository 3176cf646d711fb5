"""Each call of both services, on each face, with each kind of token: the code that comes back.

What is expected is computed from the rules below; docs/access.md shows the same table to people and must
agree with it. `ACCESS_TABLE=docs/access.md pytest tests/test_access.py` writes that file anew.
"""
import base64
import functools
import hashlib
import hmac
import itertools
import json
import os
import re
import urllib.parse

import grpc
import pytest
from google.protobuf import json_format

from support import api
from support.cluster import PASSWORD, Cluster, Dev
from support.process import ROOT, wait_until

SECRET = "the secret of the access table, 32 characters at least"
ADMIN = {"VECTRON_ADMIN_EMAIL": "boss@example.com", "VECTRON_ADMIN_PASSWORD": "Correct-boss-7"}
GRPC_CODES = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403,
              grpc.StatusCode.NOT_FOUND: 404}
JSON_CODES = {401: 16, 403: 7, 404: 5}
_numbers = itertools.count(1)

# --- The calls: what is asked, and who may. {…} is filled in for each cell.

DATA = {
    "CreateCollection": ("owner", {"name": "{new}", "dimension": 2}),
    "ListCollections": ("reader", {}),
    "DeleteCollection": ("owner", {"name": "{goner}"}),
    "GetCollectionStatus": ("reader", {"name": "c"}),
    "Upsert": ("writer", {"collection": "c", "points": [{"id": "spare", "vector": [1, 2]}]}),
    "Get": ("reader", {"collection": "c", "id": "a"}),
    "Delete": ("writer", {"collection": "c", "id": "spare"}),
    "Search": ("reader", {"collection": "c", "vector": [1, 1]}),
    "SearchStream": ("reader", {"collection": "c", "vector": [1, 1]}),
    "SubmitFeedback": ("reader", {"collection": "c", "query": "q", "feedback_items": [
        {"result_id": "a", "relevance_score": 3}]}),
}
NAMELESS = ("CreateCollection", "ListCollections")  # they are about no collection that is there
PUBLIC = {
    "RegisterUser": {"email": "{email}", "password": PASSWORD},
    "Login": {"email": "{known_email}", "password": PASSWORD},
}
ACCOUNT = {
    "GetUserProfile": {},
    "UpdateUserProfile": {"plan": "PAID"},
    "DeleteUser": {"password": PASSWORD},
    "ChangePassword": {"old_password": PASSWORD, "new_password": "Another-horse-8"},
    "RefreshToken": {},
    "CreateAPIKey": {"name": "made"},
    "ListAPIKeys": {},
    "DeleteAPIKey": {"key_prefix": "{key}"},
    "CreateSDKJWT": {"api_key_id": "{key}"},
}
ADMINS = {"ListAuditEvents": {"limit": 1}}  # methods for admins; the pages for them are below
OF_A_KEY = ("DeleteAPIKey", "CreateSDKJWT")
OF_A_PASSWORD = ("DeleteUser", "ChangePassword")
FATAL = ("DeleteUser", "ChangePassword", "CreateAPIKey")  # they use their user up
INTERNAL = {
    "ValidateAPIKey": {"full_key": "vtk_00000000_x"},
    "GetAuthDetailsForSDK": {"api_key_id": "vtk_00000000"},
    "WatchIdentity": {},
    "LookupIdentity": {"user_id": "x"},
    "ReportKeyUse": {},
    "MakeAdmin": {"email": "{email}", "password": PASSWORD},
}
PAGES = [("GET", "/v1/system/health"), ("GET", "/v1/admin/stats"), ("GET", "/v1/admin/workers"),
         ("GET", "/v1/admin/collections"), ("GET", "/v1/alerts"), ("POST", "/v1/alerts/0/resolve")]


def kind_of(call):
    for kind, calls in (("data", DATA), ("public", PUBLIC), ("account", ACCOUNT),
                        ("internal", INTERNAL)):
        if call in calls:
            return kind
    return "management"


def routes(service):
    """{method: (verb, path)} of lib/api/routes.c."""
    text = (ROOT / "lib/api/routes.c").read_text(encoding="utf-8")
    return {method: (verb, path) for method, verb, path in
            re.findall(rf'\{{{service}, "(\w+)", "(\w+)", "([^"]+)"\}}', text)}


def faces():
    """Every (face, call) there is, from the messages, the routes and the pages."""
    vectron = api.vectron.DESCRIPTOR.services_by_name["VectronService"].methods_by_name
    auth = api.auth.DESCRIPTOR.services_by_name["AuthService"].methods_by_name
    identity = api.auth.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name
    text = (ROOT / "services/apigateway/management.c").read_text(encoding="utf-8")
    pages = re.findall(r'add_page\(router, "(\w+)", "([^"]+)"', text)
    assert len(pages) == len(PAGES)
    for (verb, pattern), (our_verb, path) in zip(pages, PAGES):
        assert verb == our_verb and path.startswith(pattern.rstrip("*"))
    of_http = [*routes("VECTRON"), *routes("AUTH")]
    return [*(("gateway gRPC", name) for name in vectron),
            *(("gateway HTTP", name) for name in dict.fromkeys(of_http)),
            *(("gateway HTTP", " ".join(page)) for page in PAGES),
            *(("auth gRPC", name) for name in (*auth, *identity)),
            *(("auth HTTP", name) for name in routes("AUTH"))]


# --- The tokens

def encode(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def resign(token, algorithm="HS256", secret=SECRET, **changes):
    """The token with other claims, and the right signature for them unless told otherwise."""
    head = encode({"alg": algorithm, "typ": "JWT"})
    body = encode({**decode(token.split(".")[1]), **changes})
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    if algorithm == "none":
        return f"{head}.{body}."
    signature = hmac.new(secret.encode(), f"{head}.{body}".encode(), digest[algorithm]).digest()
    return f"{head}.{body}.{encode(signature)}"


def tampered(token):
    """More rights in the claims, under the old signature."""
    head, body, signature = token.split(".")
    return f"{head}.{encode({**decode(body), 'role': 'admin', 'plan': 'PAID'})}.{signature}"


def other_kind(token):
    return "sdk" if decode(token.split(".")[1])["typ"] == "login" else "login"


def other_audience(token):
    return "api" if decode(token.split(".")[1])["aud"] == "console" else "console"


# Each is made from a token that would open the call.
SPOILT = {
    "garbage": lambda token: "garbage",
    "expired": lambda token: resign(token, exp=decode(token.split(".")[1])["iat"] - 60),
    "of tomorrow": lambda token: resign(token, iat=decode(token.split(".")[1])["exp"] - 60),
    "wrong audience": lambda token: resign(token, aud=other_audience(token)),
    "wrong issuer": lambda token: resign(token, iss="somebody"),
    "wrong typ": lambda token: resign(token, typ=other_kind(token)),
    "HS512": lambda token: resign(token, "HS512"),
    "alg none": lambda token: resign(token, "none"),
    "tampered": tampered,
    "other secret": lambda token: resign(token, secret="y" * 40),
}


class Cast:
    """A user with everything that the tokens of a table need."""

    def __init__(self, deployment):
        self.deployment = deployment
        self.email, self.login = deployment.register()
        self.sdk_tokens = {}

    @functools.cached_property
    def key(self):
        return self.new_key()["keyInfo"]["keyPrefix"]

    def new_key(self, **fields):
        return self.deployment.create_key(self.login, **fields)

    def sdk(self, role="owner", bound_to=None):
        if (role, bound_to) not in self.sdk_tokens:
            made = self.new_key(role=role, collections=[bound_to] if bound_to else [])
            self.sdk_tokens[role, bound_to] = made["sdkJwt"]
        return self.sdk_tokens[role, bound_to]

    @functools.cached_property
    def deleted_key(self):
        made = self.new_key()
        web = self.deployment.auth_http(self.login)
        assert web.delete(f"/v1/keys/{made['keyInfo']['keyPrefix']}").code == 200
        self.wait_dead(made["sdkJwt"])
        return made["sdkJwt"]

    @functools.cached_property
    def deleted_user(self):
        other = Cast(self.deployment)
        tokens = {"sdk": other.sdk(), "login": other.login}
        self.deployment.http(tokens["sdk"]).get("/v1/collections")
        assert self.deployment.auth_http(other.login).post(
            "/v1/user/delete", {"password": PASSWORD}).code == 200
        self.wait_dead(*tokens.values())
        return tokens

    @functools.cached_property
    def old_login(self):
        other = Cast(self.deployment)
        assert self.deployment.auth_http(other.login).post(
            "/v1/user/password",
            {"old_password": PASSWORD, "new_password": "Another-horse-8"}).code == 200
        self.wait_dead(other.login)
        return other.login

    @functools.cached_property
    def foreigner(self):
        return Cast(self.deployment)

    @functools.cached_property
    def admin(self):
        email, password = self.deployment.admin
        person = self.deployment.auth_http(headers={"x-forwarded-for": api.fresh_address()})
        return person.post("/v1/users/login", {"email": email, "password": password}).json[
            "jwtToken"]

    def wait_dead(self, *tokens):
        for token in tokens:
            wait_until(lambda t=token: self.deployment.http(t).get("/v1/collections").code == 401,
                       seconds=1, what="the refusal")

    def has_collection(self, name):
        answer = self.deployment.http(self.sdk()).post("/v1/collections",
                                                       {"name": name, "dimension": 2})
        assert answer.code in (200, 409), answer.body
        return name

    def has_everything(self):
        self.has_collection("c")
        answer = self.deployment.http(self.sdk()).post(
            "/v1/collections/c/points", {"points": [{"id": "a", "vector": [1, 1]}]})
        assert answer.code == 200, answer.body
        return self


def sound_token(cast, kind):
    return {"data": cast.sdk, "management": lambda: cast.admin}.get(kind, lambda: cast.login)()


TOKENS = {
    "no token": lambda cast, kind: None,
    **{name: (lambda spoil: lambda cast, kind: spoil(sound_token(cast, kind)))(spoil)
       for name, spoil in SPOILT.items()},
    "deleted key": lambda cast, kind: cast.deleted_key,
    "deleted user": lambda cast, kind: cast.deleted_user["sdk" if kind == "data" else "login"],
    "old password": lambda cast, kind: cast.old_login,
    "foreign owner": lambda cast, kind: cast.foreigner.sdk(),
    "foreign login": lambda cast, kind: cast.foreigner.login,
    "reader": lambda cast, kind: cast.sdk("reader"),
    "writer": lambda cast, kind: cast.sdk("writer"),
    "owner": lambda cast, kind: cast.sdk(),
    "bound elsewhere": lambda cast, kind: cast.sdk(bound_to="elsewhere"),
    "login": lambda cast, kind: cast.login,
    "admin": lambda cast, kind: cast.admin,
}
DEAD = {"no token", *SPOILT, "deleted key", "deleted user", "old password"}
RANKS = {"reader": 1, "writer": 2, "owner": 3, "foreign owner": 3, "bound elsewhere": 3}
LOGINS = {"login", "foreign login", "admin"}

# --- What is expected


def expected_of_data(face, call, token):
    if token in LOGINS:
        if face == "gateway gRPC":
            return 401
    elif RANKS[token] < RANKS[DATA[call][0]]:
        return 403
    if token == "bound elsewhere" and call == "CreateCollection":
        return 403
    is_stranger = token in ("foreign owner", "foreign login", "admin", "bound elsewhere")
    return 404 if is_stranger and call not in NAMELESS else 200


def expected_of_account(face, call, token):
    if face == "gateway gRPC":  # no login token opens it, and this call takes no other
        return 403 if token in RANKS else 401
    if token in RANKS:
        return 403
    if token == "admin" and call in OF_A_PASSWORD:
        return 403  # it is not his password
    return 404 if token != "login" and call in OF_A_KEY else 200


def expected(face, call, token):
    kind = kind_of(call)
    if kind == "public":
        return 200
    if kind == "internal":
        return 403
    if token == "deleted key" and face != "gateway gRPC" and (kind == "account" or call in ADMINS):
        return 403  # the auth service refuses the kind before it looks for the key
    if token in DEAD:
        return 401
    if kind == "data":
        return expected_of_data(face, call, token)
    if kind == "account":
        return expected_of_account(face, call, token)
    if token != "admin":
        return 403
    return 404 if call.startswith("POST") else 200  # there is no alert 0


# --- Asking

def fill(cast, fields, is_fine):
    """The request with its {…} filled in; what only a permitted call needs is made only for it."""
    number = next(_numbers)
    values = {
        "new": lambda: f"n{number}",
        "goner": lambda: cast.has_collection("goner") if is_fine else "goner",
        "email": lambda: f"access-{number}-{api.fresh_address()}@example.com",
        "known_email": lambda: cast.email,
        "key": lambda: cast.new_key()["keyInfo"]["keyPrefix"] if is_fine else cast.key,
    }
    return {name: values[value[1:-1]]() if isinstance(value, str) and value[:1] == "{" else value
            for name, value in fields.items()}


def ask_grpc(deployment, face, call, fields, token):
    module, service = api.auth, "AuthService"
    if face == "gateway gRPC":
        module, service = api.vectron, "VectronService"
    elif call in ("WatchIdentity", "LookupIdentity", "ReportKeyUse", "MakeAdmin"):
        service = "IdentityService"
    client = deployment.clients.setdefault((face, service), None)
    if client is None:
        make = deployment.grpc if face == "gateway gRPC" else deployment.auth_grpc
        client = make() if service != "IdentityService" else api.Grpc(
            deployment.auth_grpc_address, module, service)
        deployment.clients[face, service] = client
    method = client.descriptor.methods_by_name[call]
    request = json_format.ParseDict(fields, getattr(module, method.input_type.name)())
    metadata = [("x-forwarded-for", api.fresh_address())]
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    try:
        answer = getattr(client, call)(request, metadata=metadata, timeout=10)
        if call in ("SearchStream", "WatchIdentity"):
            assert list(answer)
    except grpc.RpcError as error:
        assert error.code() in GRPC_CODES, f"{face} {call}: {error.code()} {error.details()}"
        assert error.details()
        return GRPC_CODES[error.code()]
    return 200


def ask_http(deployment, face, call, fields, token):
    verb, path = call.split(" ") if call.startswith(("GET", "POST")) else {
        **routes("VECTRON"), **routes("AUTH")}[call]
    names = re.findall(r"\{(\w+)\}", path)
    path = re.sub(r"\{(\w+)\}", lambda match: urllib.parse.quote(fields[match[1]]), path)
    body = {name: value for name, value in fields.items() if name not in names}
    make = deployment.http if face == "gateway HTTP" else deployment.auth_http
    answer = make(token, headers={"x-forwarded-for": api.fresh_address()}).request(
        verb, path, body if verb in ("POST", "PUT") else None)
    if answer.code != 200:
        assert answer.json["code"] == JSON_CODES.get(answer.code), f"{face} {call}: {answer.body}"
        assert answer.json["message"] and answer.json["details"] == []
    if answer.code == 401:
        assert "Bearer" in answer.headers["WWW-Authenticate"]
    return answer.code


def ask(deployment, cast, face, call, token):
    wanted = expected(face, call, token)
    if call in FATAL and wanted == 200 and token != "admin":
        cast = Cast(deployment)
    fields = {**PUBLIC, **ACCOUNT, **INTERNAL, **ADMINS}.get(call, {})
    if call in DATA:
        fields = DATA[call][1]
    fields = fill(cast, fields, wanted == 200)
    text = TOKENS[token](cast, kind_of(call))
    asking = ask_grpc if face.endswith("gRPC") else ask_http
    return asking(deployment, face, call, fields, text)


# --- The table

@pytest.fixture(scope="module", params=["dev", "cluster"])
def world(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "dev":
        running = Dev(folder, {"JWT_SECRET": SECRET}).start()
        running.admin = (folder / "data" / "admin-login").read_text().split()
    else:
        running = Cluster(folder, environment={"JWT_SECRET": SECRET, **ADMIN}).start()
        running.admin = tuple(ADMIN.values())
    running.clients = {}
    running.cast = Cast(running).has_everything()
    yield running
    for client in running.clients.values():
        client.close()
    running.stop()


def print_table(codes):
    """The table as docs/access.md shows it: {(face, call): {token: code}}."""
    head = (ROOT / "docs/access.md").read_text(encoding="utf-8").split("\n| ", 1)[0]
    rows = [["face", "call", *TOKENS], ["---"] * (2 + len(TOKENS))]
    for (face, call), seen in codes.items():
        rows.append([face, call, *("ok" if code == 200 else str(code) for code in seen.values())])
    return head + "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_each_call_with_each_token(world):
    seen = {(face, call): {token: ask(world, world.cast, face, call, token) for token in TOKENS}
            for face, call in faces()}
    wrong = [f"{face} {call} with {token}: {code} instead of {expected(face, call, token)}"
             for (face, call), codes in seen.items() for token, code in codes.items()
             if code != expected(face, call, token)]
    assert not wrong, "\n".join(wrong)
    assert len(seen) > 60 and all(len(codes) == len(TOKENS) for codes in seen.values())
    if "ACCESS_TABLE" in os.environ:
        (ROOT / "docs/access.md").write_text(print_table(seen), encoding="utf-8")
    assert (ROOT / "docs/access.md").read_text(encoding="utf-8") == print_table(seen)


def test_what_was_refused_was_not_done(world):
    """After all of it the user's things are as he made them."""
    cast = Cast(world).has_everything()
    owner = world.http(cast.sdk())
    keys = world.auth_http(cast.login).get("/v1/keys").json["keys"]
    for face, call in faces():
        if kind_of(call) in ("data", "account"):
            for token in TOKENS:
                if expected(face, call, token) != 200:
                    ask(world, cast, face, call, token)
    made = ("reader", "writer", "bound elsewhere")
    names = {key["keyPrefix"] for key in world.auth_http(cast.login).get("/v1/keys").json["keys"]}
    assert {key["keyPrefix"] for key in keys} <= names and cast.key in names
    assert len(names) == len(keys) + 1 + len(made)
    assert owner.get("/v1/collections").json["collections"] == ["c"]
    assert owner.get("/v1/collections/c/points/a").json["point"]["vector"] == [1, 1]
    assert owner.get("/v1/collections/c/points/spare").code == 404
    assert world.auth_http(cast.login).get("/v1/user/profile").json["user"]["plan"] == "FREE"
