"""Several programs put together: the services as processes of their own, or `vectron dev`."""
import secrets
import string

from support import api, witness
from support.process import Process, free_port, wait_until

PASSWORD = "Correct-horse-7"


class Deployment:
    """What tests ask of a running Vectron, however it was started."""

    root_certificate = None       # PEM bytes, with TLS
    root_certificate_file = None

    def http(self, token=None, headers=None):
        return api.Http(self.http_address, token, self.root_certificate_file, headers)

    def auth_http(self, token=None, headers=None):
        return api.Http(self.auth_http_address, token, self.root_certificate_file, headers)

    def grpc(self, token=None, **options):
        return api.Grpc(self.grpc_address, api.vectron, "VectronService", token,
                        root_certificate=self.root_certificate, **options)

    def auth_grpc(self, token=None, **options):
        return api.Grpc(self.auth_grpc_address, api.auth, "AuthService", token,
                        root_certificate=self.root_certificate, **options)

    def wait_ready(self):
        wait_until(lambda: self._is_ready(), what="/readyz of the gateway and the auth service")
        return self

    def _is_ready(self):
        try:
            return (self.http().get("/readyz", timeout=2).code == 200
                    and self.auth_http().get("/readyz", timeout=2).code == 200)
        except OSError:
            return False

    def register(self, email=None):
        """A new account; returns (email, login token). Its address is its own, as limits are per
        address (the deployment trusts loopback as a proxy)."""
        email = email or "u" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(12)) \
            + "@example.com"
        person = self.auth_http(headers={"x-forwarded-for": api.fresh_address()})
        answer = person.post("/v1/users/register", {"email": email, "password": PASSWORD})
        assert answer.code == 200, answer.body
        answer = person.post("/v1/users/login", {"email": email, "password": PASSWORD})
        assert answer.code == 200, answer.body
        return email, answer.json["jwtToken"]

    def create_key(self, login, **fields):
        """A new API key of the user: the answer of CreateAPIKey as a dict."""
        person = self.auth_http(login, headers={"x-forwarded-for": api.fresh_address()})
        answer = person.post("/v1/keys", {"name": "test", **fields})
        assert answer.code == 200, answer.body
        witness.made(witness.raw_key(answer.json["sdkJwt"], self.secret()))
        return answer.json

    def user(self, **key_fields):
        """A new user with a key; returns (login token, SDK token)."""
        _, login = self.register()
        return login, self.create_key(login, **key_fields)["sdkJwt"]


class Dev(Deployment):
    """`vectron dev` in one process."""

    def __init__(self, folder, environment=None, arguments=()):
        self.folder = folder
        self.process = Process(
            "vectron",
            ["dev", "--data-dir", folder / "data", "--http-addr", "127.0.0.1:0", "--grpc-addr",
             "127.0.0.1:0", "--auth-http-addr", "127.0.0.1:0", "--auth-grpc-addr", "127.0.0.1:0",
             *arguments],
            folder, {"TRUSTED_PROXIES": "127.0.0.0/8", "RATE_LIMIT_RPS": "0",
                     **(environment or {})})

    def start(self):
        self.process.start()
        ready = self.process.ready()
        self.http_address = ready["http"]
        self.grpc_address = ready["grpc"]
        self.auth_http_address = ready["auth-http"]
        self.auth_grpc_address = ready["auth-grpc"]
        return self.wait_ready()

    def stop(self):
        return self.process.stop()

    def secret(self):
        """That of the tokens, with which API keys are sealed."""
        return self.process.environment.get("JWT_SECRET") or (
            self.folder / "data/vectron.secret").read_text().strip()


class Cluster(Deployment):
    """The services as processes: placement driver, workers, auth service, reranker, gateway."""

    def __init__(self, folder, workers=2, tls=None, environment=None, drivers=1):
        self.folder = folder
        self.tls = tls
        port = {name: free_port() for name in (
            "auth-grpc", "auth-http", "reranker", "grpc", "http")}
        local = {name: f"127.0.0.1:{number}" for name, number in port.items()}
        self.pd_addresses = [f"127.0.0.1:{free_port()}" for _ in range(drivers)]
        raft_addresses = [f"127.0.0.1:{free_port()}" for _ in range(drivers)]
        self.pd_address = self.pd_addresses[0]
        pd_list = ",".join(self.pd_addresses)
        self.reranker_address = local["reranker"]
        self.grpc_address = f"localhost:{port['grpc']}" if tls else local["grpc"]
        self.http_address = f"localhost:{port['http']}" if tls else local["http"]
        self.auth_grpc_address = f"localhost:{port['auth-grpc']}" if tls else local["auth-grpc"]
        self.auth_http_address = f"localhost:{port['auth-http']}" if tls else local["auth-http"]
        files = {}
        if tls:
            self.root_certificate_file = str(tls.root)
            self.root_certificate = tls.root.read_bytes()
            files = {name: str(path) for kind in ("GRPC", "HTTP") for name, path in (
                (f"{kind}_TLS_CERT_FILE", tls.certificate), (f"{kind}_TLS_KEY_FILE", tls.key))}
        common = {"TRUSTED_PROXIES": "127.0.0.0/8", **(environment or {})}
        members = ",".join(f"{i}:{address}" for i, address in enumerate(raft_addresses, 1))
        self.processes = {}
        for number in range(1, drivers + 1):
            # A single one keeps the plain name.
            name = "placementdriver" if drivers == 1 else f"placementdriver{number}"
            self.processes[name] = Process(
                "placementdriver",
                ["--grpc-addr", self.pd_addresses[number - 1], "--raft-addr",
                 raft_addresses[number - 1], "--node-id", number, "--initial-members", members,
                 "--data-dir", folder / ("pd" if drivers == 1 else f"pd{number}")], folder, common)
        for number in range(1, workers + 1):
            self.processes[f"worker{number}"] = Process(
                "worker",
                ["--grpc-addr", f"127.0.0.1:{free_port()}", "--raft-addr",
                 f"127.0.0.1:{free_port()}", "--pd-addrs", pd_list, "--node-id", number,
                 "--data-dir", folder / f"worker{number}"], folder, common)
        self.processes["authsvc"] = Process("authsvc", [], folder, {
            **common, **files, "GRPC_PORT": local["auth-grpc"], "HTTP_PORT": local["auth-http"],
            "PD_ADDRS": pd_list})
        self.processes["reranker"] = Process("reranker", ["--port", local["reranker"]], folder,
                                             {**common, "PD_ADDRS": pd_list})
        self.processes["apigateway"] = Process("apigateway", [], folder, {
            "RATE_LIMIT_RPS": "0", **common, **files, "GRPC_ADDR": local["grpc"],
            "HTTP_ADDR": local["http"], "PLACEMENT_DRIVER": pd_list,
            "AUTH_SERVICE_ADDR": self.auth_grpc_address,
            "RERANKER_SERVICE_ADDR": local["reranker"],
            "FEEDBACK_DB_PATH": str(folder / "feedback.db"),
            **({"AUTH_SERVICE_TLS": "true", "AUTH_SERVICE_TLS_CA": str(tls.root)} if tls else {})})

    def start(self, order=None):
        for name in order or self.processes:
            self.processes[name].start()
        for process in self.processes.values():
            process.ready()
        for name, process in self.processes.items():
            if name.startswith("worker"):
                process.wait_line("Successfully registered with PD")
        return self.wait_ready()

    def stop(self):
        """End all; returns the exit codes by name."""
        return {name: process.stop() for name, process in reversed(self.processes.items())}

    def secret(self):
        """That of the tokens, with which API keys are sealed."""
        return self.processes["authsvc"].environment.get("JWT_SECRET") or (
            self.folder / "vectron.secret").read_text().strip()

    def add_gateway(self):
        """A second gateway of the same cluster, as a deployment: stop it before the cluster."""
        first = self.processes["apigateway"].environment
        return Gateway(self, {
            **first, "GRPC_ADDR": "127.0.0.1:0", "HTTP_ADDR": "127.0.0.1:0",
            "FEEDBACK_DB_PATH": str(self.folder / "second-feedback.db")})


class Gateway(Deployment):
    """One more gateway."""

    def __init__(self, cluster, environment):
        self.process = Process("apigateway", [], cluster.folder, environment).start()
        ready = self.process.ready()
        self.grpc_address, self.http_address = ready["grpc"], ready["http"]
        self.auth_http_address = cluster.auth_http_address
        self.wait_ready()

    def stop(self):
        return self.process.stop()
