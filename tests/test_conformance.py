"""The cases of clientlibs/conformance by the Python client, both kinds, and by plain HTTP/JSON."""
import asyncio
import inspect
import json
import sys
import urllib.parse

import numpy
import pytest

from support.process import ROOT

sys.path.insert(0, str(ROOT / "clientlibs/python"))

import vectron_client as vc  # noqa: E402 # needs the path above

FOLDER = ROOT / "clientlibs/conformance"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))
CODES = {3: "invalid_argument", 5: "not_found", 6: "already_exists", 7: "permission_denied",
         8: "resource_exhausted", 14: "unavailable", 16: "unauthenticated"}


class Failed(Exception):
    """A call's error: its code's name and its text."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


def plain(value):
    """A result of the client as JSON has it."""
    if isinstance(value, numpy.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(item) for name, item in vars(value).items()}
    return value


class Python:
    """The synchronous client."""

    transport = "grpc"

    def __init__(self, deployment, token):
        self.client = vc.VectronClient(deployment.grpc_address, token)

    def run(self, call, arguments):
        if "points" in arguments:
            arguments["points"] = [vc.Point(**point) for point in arguments["points"]]
        if "items" in arguments:
            arguments["items"] = [vc.FeedbackItem(**item) for item in arguments["items"]]
        try:
            return plain(self.finish(getattr(self.client, call)(**arguments)))
        except vc.VectronError as error:
            raise Failed(error.code.name.lower(), str(error)) from error

    def finish(self, answer):
        return list(answer) if inspect.isgenerator(answer) else answer

    def close(self):
        self.client.close()


class Asyncio(Python):
    """The asyncio client, in a loop of its own."""

    def __init__(self, deployment, token):
        self.loop = asyncio.new_event_loop()

        async def make():
            return vc.AsyncVectronClient(deployment.grpc_address, token)

        self.client = self.loop.run_until_complete(make())

    def finish(self, answer):
        async def collect():
            return [item async for item in answer]

        return self.loop.run_until_complete(collect() if inspect.isasyncgen(answer) else answer)

    def close(self):
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


class Http:
    """HTTP/JSON without a client library."""

    transport = "http"

    def __init__(self, deployment, token):
        self.http = deployment.http(token)

    def run(self, call, arguments):
        return getattr(self, call)(**arguments)

    def ask(self, verb, path, body=None):
        answer = self.http.request(verb, path, body)
        if answer.code != 200:
            raise Failed(CODES[answer.json["code"]], answer.json["message"])
        return answer.json

    @staticmethod
    def path(collection, *rest):
        return "/".join(["/v1/collections", urllib.parse.quote(collection, safe=""), *rest])

    def point_path(self, collection, id):
        return self.path(collection, "points", urllib.parse.quote(id, safe=""))

    def create_collection(self, **body):
        self.ask("POST", "/v1/collections", body)

    def delete_collection(self, name):
        self.ask("DELETE", self.path(name))

    def list_collections(self):
        return self.ask("GET", "/v1/collections")["collections"]

    def get_collection_status(self, name):
        return self.ask("GET", self.path(name, "status"))

    def upsert(self, collection, points):
        return self.ask("POST", self.path(collection, "points"), {"points": points})["upserted"]

    def upsert_batch(self, collection, points, batch_size=256, concurrency=1):
        return self.upsert(collection, points)

    def get(self, collection, id):
        return self.ask("GET", self.point_path(collection, id))["point"]

    def delete(self, collection, id):
        self.ask("DELETE", self.point_path(collection, id))

    def search(self, collection, **body):
        return self.ask("POST", self.path(collection, "points", "search"), body)["results"]

    search_stream = search

    def submit_feedback(self, items, **body):
        return self.ask("POST", "/v1/feedback", {"feedback_items": items, **body})["feedbackId"]

    def close(self):
        pass


def differences(found, wanted, tolerance, where="result"):
    """What is not as it should be, as sentences."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            if name not in found:
                yield f"{where} has no {name}"
            else:
                yield from differences(found[name], value, tolerance, f"{where}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(found) != len(wanted):
            yield f"{where} has {len(found)} items, not {len(wanted)}: {found}"
        for index, (one, other) in enumerate(zip(found, wanted, strict=False)):
            yield from differences(one, other, tolerance, f"{where}[{index}]")
    elif type(wanted) in (int, float) and type(found) in (int, float):
        if abs(found - wanted) > tolerance * max(1e-30, abs(wanted)) and \
                not (wanted == 0 and abs(found) <= tolerance):
            yield f"{where} is {found}, not {wanted}"
    elif found != wanted or type(found) is not type(wanted):
        yield f"{where} is {found!r}, not {wanted!r}"


def test_the_comparison_sees_differences():
    wanted = {"id": "a", "score": 0.5, "list": [1, True], "no": None}
    assert not list(differences({**wanted, "more": 1}, wanted, 1e-6))
    for change in ({"id": "b"}, {"score": 0.50001}, {"list": [1]}, {"list": [1, 1]},
                   {"no": 0}, {"score": "0.5"}):
        assert list(differences({**wanted, **change}, wanted, 1e-6)), change


def test_the_cases_are_there():
    assert {"access", "batch", "collections", "feedback", "points", "search"} <= set(CASES)


@pytest.mark.parametrize("runner", [Python, Asyncio, Http], ids=["python", "asyncio", "http"])
@pytest.mark.parametrize("case", CASES)
def test_case(case, runner, dev):
    _, login = dev.register()
    sessions = {}

    def session(role):
        if role not in sessions:
            token = {"nobody": "nonsense", "login": login}.get(role) or \
                dev.create_key(login, role=role)["sdkJwt"]
            sessions[role] = runner(dev, token)
        return sessions[role]

    steps = json.loads((FOLDER / f"{case}.json").read_text(encoding="utf-8"))
    for number, step in enumerate(steps, 1):
        assert set(step) <= {"call", "args", "result", "error", "holds", "role", "only",
                             "tolerance"}, step
        if step.get("only", runner.transport) != runner.transport:
            continue
        what = f"step {number} of {case}, {step['call']}"
        try:
            found = session(step.get("role", "owner")).run(step["call"], step["args"])
        except Failed as error:
            assert error.code == step.get("error"), f"{what}: {error}"
            assert step.get("holds", "") in error.text, f"{what}: {error}"
            continue
        assert "error" not in step, f"{what} gave {found!r} instead of {step['error']}"
        if "result" in step:
            wrong = list(differences(found, step["result"], step.get("tolerance", 1e-6)))
            assert not wrong, f"{what}: {wrong}"
    for one in sessions.values():
        one.close()
