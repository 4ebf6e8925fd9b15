"""compose.yaml cannot be run here; what it says is held to what the service takes."""

import os
import re
import subprocess
from pathlib import Path

import yaml

from tests.cli.commands import COMMAND
from tracesvc.service.tokens import Scope, parse_tokens
from tracesvc.store import link

RECIPE = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())
SERVICES = RECIPE["services"]


def test_the_service_takes_its_settings(tmp_path):
    for name in ("replica1", "replica2"):
        replica = SERVICES[name]
        words = replica["command"]
        words[words.index("--data") + 1] = str(tmp_path)
        values = {
            k: re.sub(r"\$\{\w+:-(.*)\}", r"\1", v) for k, v in replica["environment"].items()
        }
        (token,) = parse_tokens(values["TRACESVC_TOKENS"])
        assert token.scopes == frozenset(Scope)
        checked = subprocess.run(
            [*COMMAND, *words, "--check"],
            env={**os.environ, **values},
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr
        assert f"store = {values['TRACESVC_SERVE_STORE']}  (environment)" in checked.stdout
        assert f"bucket = {values['TRACESVC_SERVE_BUCKET']}  (environment)" in checked.stdout


def test_the_servers_are_what_production_asks_for():
    named = set(
        re.findall(
            r"nats://(\w+):4222", SERVICES["replica1"]["environment"]["TRACESVC_SERVE_STORE"]
        )
    )
    assert named == {"nats1", "nats2", "nats3"}
    said = RECIPE["configs"]["nats"]["content"]
    assert "sync_interval: always" in said
    for name in named:
        version = re.search(r"nats:(\d+)[.](\d+)[.](\d+)", SERVICES[name]["image"])
        assert tuple(map(int, version.groups())) >= link.WANTED
        assert f"nats://{name}:6222" in said
        assert SERVICES[name]["environment"]["NAME"] == name
