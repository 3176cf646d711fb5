"""deploy/: what the units and the example's settings say is what the programs understand."""
import os
import re
import subprocess

import pytest

from support.process import BIN, ROOT

DEPLOY = ROOT / "deploy"
PLACES = [(place.parent.name, place.stem)
          for place in sorted((DEPLOY / "example").glob("*/*.env"))]


def read_settings(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def command_of(service):
    unit = (DEPLOY / f"systemd/vectron-{service}.service").read_text()
    command, = re.findall(r"^ExecStart=/usr/bin/(.*)$", unit, re.M)
    assert f"EnvironmentFile=-/etc/vectron/{service}.env" in unit
    return command.split()


def test_every_service_has_a_unit_and_a_place():
    units = {path.stem.removeprefix("vectron-") for path in (DEPLOY / "systemd").glob("*.service")}
    assert units == {"placementdriver", "worker", "authsvc", "apigateway", "reranker"}
    assert {service for _, service in PLACES} == units


@pytest.mark.parametrize("machine,service", PLACES)
def test_the_settings_are_understood(machine, service):
    settings = {**read_settings(DEPLOY / "example/common.env"),
                **read_settings(DEPLOY / f"example/{machine}/{service}.env")}
    binary, *arguments = command_of(service)
    assert binary == service
    used = set()

    def expand(match):
        used.add(match.group(1))
        return settings[match.group(1)]
    arguments = [re.sub(r"\$\{(\w+)\}", expand, argument) for argument in arguments]
    done = subprocess.run([BIN / binary, *arguments, "--print-config"], capture_output=True,
                          text=True, timeout=20, env={"PATH": os.environ["PATH"], **settings})
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    # Each setting of the machine's own file has reached the program, by flag or environment.
    for name, value in read_settings(DEPLOY / f"example/{machine}/{service}.env").items():
        assert name in used or re.search(rf"={re.escape(value)}  # environment", shown), name
    assert "placement" not in service or "initial-members=1:10.0.0.1:7001,2:" in shown
    for secret in ("JWT_SECRET", "VECTRON_CLUSTER_SECRET"):
        assert settings[secret] not in shown
