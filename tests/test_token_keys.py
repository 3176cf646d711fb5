"""How tokens are signed: key pairs, what is published of them, and changing keys and secrets while
people are logged in."""
import base64
import json
import subprocess

import jwt
import pytest

from support.cluster import Cluster, Dev
from support.process import run

SECRET = "the first secret of this deployment, long enough"
NEXT_SECRET = "the second secret of this deployment, long enough"
KINDS = {"ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
         "EdDSA": ["-algorithm", "ED25519"]}


def make_pair(folder, name, algorithm):
    """Paths of a new private key and of its public part."""
    key, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", *KINDS[algorithm], "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return key, public


def settings(deployment, name, **values):
    process = deployment.processes[name]
    process.environment.update({key: str(value) for key, value in values.items()})


def restart(deployment, *names):
    for name in names:
        assert deployment.processes[name].stop() == 0
        deployment.processes[name].start().ready()
    deployment.wait_ready()


def lists(deployment, token):
    return deployment.http(token).get("/v1/collections").code


def tampered(token):
    """A character in the middle of the signature is another one."""
    head, signature = token.rsplit(".", 1)
    at = len(signature) // 2
    return f"{head}.{signature[:at]}{'A' if signature[at] != 'A' else 'B'}{signature[at + 1:]}"


def with_header(token, key, algorithm, **header):
    """The same claims as somebody else would sign them."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


@pytest.mark.parametrize("algorithm", list(KINDS))
def test_a_key_pair(algorithm, tmp_path):
    key, public = make_pair(tmp_path, "first", algorithm)
    _, stranger = make_pair(tmp_path, "stranger", algorithm)
    stranger_key = (tmp_path / "stranger.pem").read_bytes()
    cluster = Cluster(tmp_path, workers=1, environment={
        "JWT_SECRET": SECRET, "VECTRON_JWT_ALGORITHM": algorithm})
    settings(cluster, "authsvc", VECTRON_JWT_KEY_FILE=key)
    settings(cluster, "apigateway", VECTRON_JWT_ACCEPTED_KEYS=public)
    cluster.start()
    try:
        login, token = cluster.user()
        assert lists(cluster, token) == 200
        assert cluster.auth_http(login).get("/v1/keys").code == 200

        # Anybody can check a token with what is published, on both ports alike.
        answer = cluster.http().get("/.well-known/jwks.json")
        assert answer.code == 200 and answer.headers["content-type"] == "application/jwk-set+json"
        assert cluster.auth_http().get("/.well-known/jwks.json").json == answer.json
        [published] = answer.json["keys"]
        assert "d" not in published and published["alg"] == algorithm
        header = jwt.get_unverified_header(token)
        assert header == {"alg": algorithm, "kid": published["kid"], "typ": "JWT"}
        claims = jwt.decode(token, jwt.PyJWK(published).key, algorithms=[algorithm], audience="api",
                            issuer="vectron")
        assert claims["typ"] == "sdk"

        kid = published["kid"]
        public_text = public.read_text()
        secret_of_public = base64.urlsafe_b64encode(public_text.encode()).decode().rstrip("=")
        bad = {
            "tampered": tampered(token),
            "stranger's key under our id": with_header(token, stranger_key, algorithm, kid=kid),
            "stranger's key": with_header(token, stranger_key, algorithm, kid="other"),
            "no id": with_header(token, key.read_bytes(), algorithm),
            "the secret": with_header(token, SECRET, "HS256", kid=kid),
            "the public key as a secret": hmac_token(token, public_text, kid),
            "the public key in base64": hmac_token(token, secret_of_public, kid),
            "none": with_header(token, None, "none", kid=kid),
        }
        for what, each in bad.items():
            assert lists(cluster, each) == 401, what
        # Our own key and another writer's order of the header: good.
        assert lists(cluster, with_header(token, key.read_bytes(), algorithm, kid=kid)) == 200
        assert cluster.auth_http(tampered(login)).get("/v1/keys").code == 401
    finally:
        cluster.stop()


def hmac_token(token, secret, kid):
    """HS256 by hand: PyJWT refuses a public key as a secret."""
    import hashlib
    import hmac

    def encode(data):
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    header = encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
    text = f"{header}.{token.split('.')[1]}"
    return f"{text}.{encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())}"


def test_a_key_pair_is_changed_while_people_are_logged_in(tmp_path):
    key, public = make_pair(tmp_path, "first", "EdDSA")
    next_key, next_public = make_pair(tmp_path, "next", "EdDSA")
    cluster = Cluster(tmp_path, workers=1, environment={
        "JWT_SECRET": SECRET, "VECTRON_JWT_ALGORITHM": "EdDSA"})
    settings(cluster, "authsvc", VECTRON_JWT_KEY_FILE=key)
    settings(cluster, "apigateway", VECTRON_JWT_ACCEPTED_KEYS=public)
    cluster.start()
    try:
        login, token = cluster.user()
        # Those who check learn the new key first.
        settings(cluster, "apigateway", VECTRON_JWT_ACCEPTED_KEYS=f"{public},{next_public}")
        restart(cluster, "apigateway")
        assert len(cluster.http().get("/.well-known/jwks.json").json["keys"]) == 2
        assert lists(cluster, token) == 200
        # Then it signs; the old one's tokens are good still.
        settings(cluster, "authsvc", VECTRON_JWT_KEY_FILE=next_key, VECTRON_JWT_ACCEPTED_KEYS=public)
        restart(cluster, "authsvc")
        assert cluster.auth_http(login).get("/v1/keys").code == 200
        new_token = cluster.create_key(login)["sdkJwt"]
        kids = {jwt.get_unverified_header(each)["kid"] for each in (token, new_token)}
        assert len(kids) == 2
        assert lists(cluster, token) == 200 and lists(cluster, new_token) == 200
        # Then the old one is forgotten.
        settings(cluster, "authsvc", VECTRON_JWT_ACCEPTED_KEYS="")
        settings(cluster, "apigateway", VECTRON_JWT_ACCEPTED_KEYS=next_public)
        restart(cluster, "authsvc", "apigateway")
        assert lists(cluster, token) == 401 and lists(cluster, new_token) == 200
        assert cluster.auth_http(login).get("/v1/keys").code == 401
    finally:
        cluster.stop()


def test_the_secret_is_changed_while_people_are_logged_in(tmp_path):
    cluster = Cluster(tmp_path, workers=1, environment={"JWT_SECRET": SECRET}).start()
    try:
        login, _ = cluster.user()
        key = cluster.create_key(login, name="kept")
        token = key["sdkJwt"]
        assert lists(cluster, token) == 200
        # Gateways accept the new secret first, then it is the auth service's, then everybody's.
        settings(cluster, "apigateway", VECTRON_JWT_PREVIOUS_SECRET=NEXT_SECRET)
        restart(cluster, "apigateway")
        assert lists(cluster, token) == 200
        settings(cluster, "authsvc", JWT_SECRET=NEXT_SECRET, VECTRON_JWT_PREVIOUS_SECRET=SECRET)
        restart(cluster, "authsvc")
        new_token = cluster.create_key(login, name="new")["sdkJwt"]
        assert lists(cluster, token) == 200 and lists(cluster, new_token) == 200
        settings(cluster, "apigateway", JWT_SECRET=NEXT_SECRET, VECTRON_JWT_PREVIOUS_SECRET=SECRET)
        restart(cluster, "apigateway")
        assert lists(cluster, token) == 200 and lists(cluster, new_token) == 200
        # The old secret goes: its tokens with it, but not the keys.
        for name in ("authsvc", "apigateway"):
            settings(cluster, name, VECTRON_JWT_PREVIOUS_SECRET="")
        restart(cluster, "authsvc", "apigateway")
        assert lists(cluster, token) == 401 and lists(cluster, new_token) == 200
        _, other_login = cluster.register()
        assert cluster.auth_http(login).get("/v1/keys").code == 401
        assert cluster.auth_http(other_login).get("/v1/keys").code == 200
    finally:
        cluster.stop()


def test_settings_that_do_not_fit_end_the_start(tmp_path):
    key, public = make_pair(tmp_path, "es", "ES256")
    make_pair(tmp_path, "ed", "EdDSA")
    cases = [
        ({"VECTRON_JWT_ALGORITHM": "none"}, "is not HS256, ES256 or EdDSA"),
        ({"VECTRON_JWT_ALGORITHM": "ES256"}, "must name a private key"),
        ({"VECTRON_JWT_ALGORITHM": "ES256", "VECTRON_JWT_KEY_FILE": public},
         "must name a private key"),
        ({"VECTRON_JWT_ALGORITHM": "ES256", "VECTRON_JWT_KEY_FILE": tmp_path / "ed.pem"},
         "is a key for EdDSA"),
        ({"VECTRON_JWT_KEY_FILE": key}, "jwt-algorithm is HS256"),
        ({"VECTRON_JWT_PREVIOUS_SECRET": "short"}, "32 at least"),
    ]
    for environment, text in cases:
        code, _, errors = run("authsvc", "--grpc-port", "127.0.0.1:0", "--http-port", "127.0.0.1:0",
                              "--data-dir", tmp_path / "auth", folder=tmp_path,
                              environment={"JWT_SECRET": SECRET,
                                           **{k: str(v) for k, v in environment.items()}})
        assert code == 1 and text in errors, (environment, errors)


def test_one_process_with_a_key_pair(tmp_path):
    key, _ = make_pair(tmp_path, "key", "ES256")
    dev = Dev(tmp_path, {"VECTRON_JWT_ALGORITHM": "ES256", "VECTRON_JWT_KEY_FILE": str(key)}).start()
    try:
        _, token = dev.user()
        assert lists(dev, token) == 200
        assert jwt.get_unverified_header(token)["alg"] == "ES256"
        assert lists(dev, tampered(token)) == 401
    finally:
        dev.stop()
