"""What is in force is shown whole, and without a secret."""

from __future__ import annotations

import json
import tomllib

from fleet.settings.showing import as_json, as_toml, effective

TEXT = """
concurrent = 3
[fleet]
database = "postgresql://fleet:s3cret-db@db/fleet"
api_token = "s3cret-api"
[[runners]]
name = "one"
url = "https://a"
id = 1
token = "s3cret-token"
executor = "instance"
environment = ["DEPLOY=s3cret-env"]
[runners.autoscaler]
plugin = "local"
[runners.autoscaler.plugin_config]
image = "debian"
api_key = "s3cret-key"
endpoint = "https://u:s3cret-url@h/x"
nested = [{ password = "s3cret-nested", name = "n" }]
[runners.autoscaler.connector_config]
password = "s3cret-pw"
[[runners.autoscaler.placements]]
name = "a"
zone = "z"
secret_key = "s3cret-placement"
[[runners]]
url = "https://a"
id = 2
token = "s3cret-other"
executor = "kubernetes"
"""


def test_no_secret_is_shown(load_text):
    settings = load_text(TEXT, {"FLEET_SECRET_KEY": "s3cret-fernet"}).settings
    for text in (as_json(settings), as_toml(settings), repr(settings)):
        assert "s3cret" not in text


def test_everything_in_force_is_shown(load_text):
    shown = effective(load_text(TEXT).settings)
    assert shown["concurrent"] == 3
    assert shown["fleet"]["database"] == "postgresql+psycopg://fleet:***@db/fleet"
    assert shown["fleet"]["api_token"] == "***"
    assert shown["fleet"]["agent_timeout"] == "1h0m0s"
    [runner] = shown["runners"]
    assert (runner["token"], runner["environment"]) == ("***", ["DEPLOY=***"])
    [pool] = shown["pools"]
    assert pool["plugin_config"] == {
        "image": "debian",
        "api_key": "***",
        "endpoint": "https://u:***@h/x",
        "nested": [{"password": "***", "name": "n"}],
    }
    assert pool["placements"][0]["zone"] == "z"
    assert shown["stopped"][0]["reason"].startswith("'kubernetes' is not supported")


def test_toml_and_json_say_the_same(load_text):
    settings = load_text(TEXT).settings
    from_json = json.loads(as_json(settings))
    from_toml = tomllib.loads(as_toml(settings))
    assert from_toml["pools"][0]["policy"] == from_json["pools"][0]["policy"]
    assert from_toml["fleet"] == {key: value for key, value in from_json["fleet"].items() if value is not None}
