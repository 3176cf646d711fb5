"""The documents say what the programs do: settings, messages, links, tests that are named."""
import re
import subprocess
import sys

import pytest

from support.process import BIN, ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_configuration_is_what_the_programs_say():
    done = subprocess.run([sys.executable, ROOT / "tools/configuration.py", BIN, "--check"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_messages_are_those_of_the_files():
    done = subprocess.run([sys.executable, ROOT / "tools/messages.py", "--check"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_method_and_route_is_documented():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for name in ("vectron", "auth", "placementdriver", "reranker"):
        proto = (ROOT / "api" / f"{name}.proto").read_text(encoding="utf-8")
        for service in re.findall(r"// Internal[^\n]*(?:\n//[^\n]*)*\nservice \w+ \{.*?\n\}", proto,
                                  re.S):
            proto = proto.replace(service, "")
        methods = re.findall(r"rpc (\w+)\(", proto)
        assert methods, name
        for method in methods:
            assert re.search(rf"\b{method}\b", text), f"{name}: {method}"
    routes = re.findall(r'"(GET|POST|PUT|DELETE)", "(/v1/[^"]*)"',
                        (ROOT / "lib/api/routes.c").read_text(encoding="utf-8"))
    assert len(routes) > 15
    for verb, path in routes:
        assert f"{verb} {path}" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_guarantees_name_tests_that_exist():
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]*\|([^|]*)\|$", text, re.M)[2:]
    assert len(rows) > 10
    for row in rows:
        for part in row.split(";"):
            file, *tests = re.findall(r"`([^`]+)`", part)
            source = (ROOT / file).read_text(encoding="utf-8")
            for test in tests:
                assert re.search(rf"(def |TEST\(){test}\b", source), f"{file}: {test}"
