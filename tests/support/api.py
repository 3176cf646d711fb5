"""Clients of the public API: gRPC by the published messages, HTTP/JSON by urllib."""
import importlib
import itertools
import json
import pathlib
import random
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import grpc

from support import witness
from support.process import ROOT

_generated = tempfile.TemporaryDirectory(prefix="vectron-protos-")
subprocess.run(["protoc", f"-I{ROOT / 'api'}", f"--python_out={_generated.name}",
                *map(str, sorted((ROOT / "api").glob("*.proto")))], check=True)
sys.path.insert(0, _generated.name)

vectron = importlib.import_module("vectron_pb2")
auth = importlib.import_module("auth_pb2")
placementdriver = importlib.import_module("placementdriver_pb2")
reranker = importlib.import_module("reranker_pb2")
worker = importlib.import_module("worker_pb2")
health = importlib.import_module("health_pb2")
reflection = importlib.import_module("reflection_pb2")
reflection_v1alpha = importlib.import_module("reflection_v1alpha_pb2")

MESSAGE_MAX = 300 << 20
_addresses = itertools.count(1)


def fresh_address():
    """An address that no test used before, for X-Forwarded-For: limits are per address."""
    number = next(_addresses)
    return f"10.{random.randrange(256)}.{number // 250 % 256}.{number % 250 + 1}"


class Grpc:
    """A service over gRPC: `Grpc(address, vectron, "VectronService").Search(collection=…)`."""

    def __init__(self, address, module, service, token=None, metadata=(), root_certificate=None,
                 authority=None):
        options = [("grpc.max_send_message_length", MESSAGE_MAX),
                   ("grpc.max_receive_message_length", MESSAGE_MAX),
                   ("grpc.enable_http_proxy", 0),
                   # A connection of its own: no pause that another client's failures have earned.
                   ("grpc.use_local_subchannel_pool", 1)]
        if root_certificate:
            if authority:
                options.append(("grpc.ssl_target_name_override", authority))
            self.channel = grpc.secure_channel(
                address, grpc.ssl_channel_credentials(root_certificate), options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.module = module
        self.descriptor = module.DESCRIPTOR.services_by_name[service]
        self.metadata = list(metadata)
        if token:
            self.metadata.append(("authorization", f"Bearer {token}"))

    def __getattr__(self, name):
        method = self.descriptor.methods_by_name[name]
        path = f"/{self.descriptor.full_name}/{name}"
        request_class = getattr(self.module, method.input_type.name)
        response_class = getattr(self.module, method.output_type.name)
        is_stream = name in ("SearchStream", "WatchMap", "WatchIdentity", "Watch")
        make = self.channel.unary_stream if is_stream else self.channel.unary_unary

        def decode(data):
            witness.saw(data)
            return response_class.FromString(data)

        call = make(path, request_serializer=request_class.SerializeToString,
                    response_deserializer=decode)

        def invoke(request=None, timeout=30, metadata=(), compression=None, **fields):
            try:
                return call(request or request_class(**fields), timeout=timeout,
                            metadata=[*self.metadata, *metadata], compression=compression,
                            wait_for_ready=False)
            except grpc.RpcError as error:
                witness.saw(f"{error.details()} {error.trailing_metadata()}".encode())
                raise

        return invoke

    def close(self):
        self.channel.close()


class HttpAnswer:
    def __init__(self, code, headers, body):
        self.code = code
        self.headers = headers
        self.body = body
        witness.saw(str(headers).encode() + body)

    @property
    def json(self):
        return json.loads(self.body)


class Http:
    """HTTP/JSON: `Http(address, token).post("/v1/collections", {...})`."""

    def __init__(self, address, token=None, root_certificate_file=None, headers=None):
        self.base = f"{'https' if root_certificate_file else 'http'}://{address}"
        self.headers = dict(headers or {})
        if token:
            self.headers["authorization"] = f"Bearer {token}"
        handlers = [urllib.request.ProxyHandler({})]
        if root_certificate_file:
            context = ssl.create_default_context(cafile=root_certificate_file)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self.opener = urllib.request.build_opener(*handlers)

    def request(self, verb, path, body=None, headers=None, timeout=30):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=verb,
                                         headers={**self.headers, **(headers or {})})
        try:
            with self.opener.open(request, timeout=timeout) as answer:
                return HttpAnswer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return HttpAnswer(error.code, error.headers, error.read())

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body if body is not None else {}, **options)

    def put(self, path, body=None, **options):
        return self.request("PUT", path, body if body is not None else {}, **options)

    def delete(self, path, **options):
        return self.request("DELETE", path, **options)
