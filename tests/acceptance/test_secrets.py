"""A job's secrets, from a pretend Vault through the real manager to a real script; and that nothing else sees them."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.standing import ended_of, settled, standing
from tests.contract.secrets.vault import Fault, PretendVault

SUCCESS = ("success", "", 0)
DB = "production/db"


@pytest.fixture
def vault():
    with PretendVault() as server:
        yield server
        assert server.breaches == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("secrets") / "m", warm=1) as made:
        yield made


def token() -> str:
    return ".".join(secrets.token_hex(20) for _ in range(3))


def of_vault(vault, field="password", *, path=DB, **more):
    server = {
        "url": "$VAULT_SERVER_URL", "namespace": "",
        "auth": {"name": "jwt", "path": "jwt", "data": {"jwt": "$VAULT_ID_TOKEN", "role": "deploy"}},
    }  # fmt: skip
    engine = {"name": "kv-v2", "path": "ops/$ENGINE"}
    return {"vault": {"server": server, "engine": engine, "path": path, "field": field}} | more


def variables(vault, jwt, **more):
    named = {"VAULT_SERVER_URL": vault.url, "ENGINE": "kv"} | more
    return [
        *({"key": key, "value": value, "public": True} for key, value in named.items()),
        {"key": "VAULT_ID_TOKEN", "value": jwt, "masked": True},
    ]


def filled(vault, **fields):
    """A secret in the vault, and a token that may read it."""
    jwt = token()
    vault.allow(jwt, role="deploy")
    vault.kv2[f"ops/kv/data/{DB}"] = fields
    return jwt


def everything(manager):
    """All that the manager has on this host: rows, spools, logs, machines."""
    files = (path for path in manager.directory.rglob("*") if path.is_file())
    found = b""
    for path in files:
        with contextlib.suppress(OSError):
            found += path.read_bytes()
    return found


def test_a_secret_is_a_masked_file_and_overrides_the_jobs_variable(place, vault):
    word, line = secrets.token_hex(12), secrets.token_hex(12)
    jwt = filled(vault, password=word, key=f"first\n{line}\nlast\n", raw="$CI_JOB_ID $$ %HOME%")
    ended = place.run(
        'test -f "$DB" && test "$(cat "$DB")" = "$EXPECTED" && echo it is a file',
        'echo "the value is $PLAIN; $(cat "$DB")"',
        'grep -n . "$KEY"',
        'echo "$RAW"',
        variables=[*variables(vault, jwt, PLAIN="overridden"), {"key": "EXPECTED", "value": word}],
        secrets={
            "DB": of_vault(vault),
            "PLAIN": of_vault(vault, file=False),
            "KEY": of_vault(vault, "key"),
            "RAW": of_vault(vault, "raw", file=False),
        },
    )
    assert ended.end == SUCCESS
    assert {"it is a file", "the value is [MASKED]; [MASKED]", "1:first", "2:[MASKED]", "[MASKED]"} <= set(ended.lines)
    for name in ("DB", "PLAIN", "KEY", "RAW"):
        assert f'Resolving secret "{name}"...' in ended.lines
    assert ended.lines.count('Using "vault" secret resolver...') == 4
    section = ended.trace.index(b":resolve_secrets\r")
    assert section < ended.trace.index(b":prepare_executor\r")
    assert ended.trace.count(b":resolve_secrets\r") == 2


def test_nothing_of_a_secret_is_left_on_the_managers_host(place, vault):
    words = [secrets.token_hex(20) for _ in range(2)]
    jwt = filled(vault, password=words[0], user=words[1])
    ended = place.run(
        'cat "$DB"',
        'echo "$USER_NAME"',
        variables=variables(vault, jwt),
        secrets={"DB": of_vault(vault), "USER_NAME": of_vault(vault, "user", file=False)},
    )
    assert ended.end == SUCCESS
    left = everything(place.manager)
    assert not [word for word in (*words, *jwt.split("."), *vault.tokens) if word.encode() in left]
    assert "secrets_fetched" in place.manager.log()


@pytest.mark.parametrize(
    ("break_it", "reason", "says"),
    [
        (lambda vault: vault.kv2.clear(), "runner_configuration_error", "there is no secret production/db"),
        (lambda vault: vault.roles.clear(), "runner_configuration_error", "could not be found"),
        (
            lambda vault: vault.faults.append(Fault("/login", status=503)),
            "runner_external_dependency_failure",
            "answered 503",
        ),
        (
            lambda vault: vault.faults.append(Fault(DB, status=200, body=b"<html>")),
            "runner_system_failure",
            "answered no JSON object",
        ),
    ],
)
def test_a_secret_that_cannot_be_had_fails_the_job_with_its_reason(place, vault, break_it, reason, says):
    jwt = filled(vault, password=secrets.token_hex(8))
    break_it(vault)
    ended = place.run("echo never", variables=variables(vault, jwt), secrets={"DB": of_vault(vault)})
    assert ended.end == ("failed", reason, 0)
    assert "never" not in ended.lines
    assert 'Resolving secret "DB"...' in ended.lines
    assert ended.has("secret DB of vault could not be fetched: ")
    assert ended.has(says)
    assert ended.trace.count(b":resolve_secrets\r") == 2
    assert jwt.encode() not in ended.trace


def test_attempts_are_made_as_often_as_the_job_says(place, vault):
    word = secrets.token_hex(12)
    jwt = filled(vault, password=word)
    vault.faults.append(Fault("/login", status=503, count=2))
    ended = place.run(
        'echo "have $DB"',
        variables=variables(vault, jwt, SECRETS_RETRIEVAL_ATTEMPTS="3"),
        secrets={"DB": of_vault(vault, file=False)},
    )
    assert ended.end == SUCCESS
    assert "have [MASKED]" in ended.lines
    assert ended.has("WARNING: attempt 2 of 3 failed")


def test_a_missing_secret_is_warned_of_where_the_flag_is_off(place, vault):
    jwt = filled(vault, other="x")
    ended = place.run(
        'echo "have ${DB:-nothing}"',
        variables=variables(vault, jwt, FF_SECRET_RESOLVING_FAILS_IF_MISSING="false"),
        secrets={"DB": of_vault(vault)},
    )
    assert ended.end == SUCCESS
    assert "have nothing" in ended.lines
    assert ended.has("the job goes on without DB")


@pytest.mark.parametrize(("secret", "says"), [
    ({}, "names no provider that this runner knows"),
    ({"vault": {}, "aws_secrets_manager": {}}, "names vault and aws_secrets_manager: it must be one of"),
    ({"vault": {}}, "VAULT_SERVER_URL"),
])  # fmt: skip
def test_a_secret_without_one_provider_is_refused(place, secret, says):
    ended = place.run("echo never", secrets={"DB": secret})
    assert ended.end == ("failed", "runner_configuration_error", 0)
    assert ended.has(says)


def test_gitlabs_own_secrets_manager(place, vault):
    word, jwt = secrets.token_hex(12), token()
    vault.allow(jwt, mount="pipeline_jwt", role="all_pipelines")
    vault.kv2["secrets/kv/data/explicit/DB"] = {"value": word}
    secret = {
        "server": {
            "url": vault.url, "inline_auth": {"jwt": jwt, "role": "all_pipelines", "auth_mount": "pipeline_jwt"},
        },
        "engine": {"name": "kv-v2", "path": "secrets/kv"}, "path": "explicit/DB", "field": "value",
    }  # fmt: skip
    ended = place.run('echo "have $(cat $DB)"', secrets={"DB": {"gitlab_secrets_manager": secret}})
    assert ended.end == SUCCESS
    assert "have [MASKED]" in ended.lines
    assert 'Using "gitlab_secrets_manager" secret resolver...' in ended.lines


def test_a_secret_of_aws_comes_by_the_plugin(gitlab, make_manager):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    word = secrets.token_hex(12)
    boto3.client("secretsmanager", region_name="eu-west-1", endpoint_url=url, **keys).create_secret(
        Name="ci/db", SecretString=json.dumps({"password": word})
    )
    manager = make_manager(idle=1)
    manager.environment = {name.upper(): value for name, value in keys.items()} | {"AWS_ENDPOINT_URL": url}
    manager.start()
    secret = {"secret_id": "ci/$NAME", "field": "password", "server": {"region": "eu-west-1"}}
    job = gitlab.enqueue(
        make_job(
            script=['echo "have $(cat $DB)"'],
            variables={"NAME": "db"},
            secrets={"DB": {"aws_secrets_manager": secret}},
        )
    )
    (view,) = gitlab.wait_for(job, timeout=60)
    server.stop()
    ended = ended_of(gitlab, view)
    assert ended.end == SUCCESS
    assert "have [MASKED]" in ended.lines
    assert 'Using "aws_secrets_manager" secret resolver...' in ended.lines
    assert word.encode() not in everything(manager)
    settled(gitlab, manager)


def test_a_cancel_while_a_vault_is_slow_ends_the_job_and_frees_its_machine(place, vault):
    jwt = filled(vault, password=secrets.token_hex(8))
    vault.faults.append(Fault("/login", status=503, delay_s=6.0))
    job = place.enqueue("echo never", variables=variables(vault, jwt), secrets={"DB": of_vault(vault)})
    wait_until(lambda: vault.calls, 30, "the call of the vault")
    place.gitlab.cancel(job)
    ended = place.ended(job)
    assert ended.view.state == "canceled"
    assert "never" not in ended.lines
    assert place.run("echo next").end == SUCCESS


def test_law_4_kill_9_while_secrets_are_fetched_and_before_the_start(gitlab, make_manager, vault):
    manager = make_manager(idle=1).start()
    word = secrets.token_hex(12)
    jwt = filled(vault, password=word)
    vault.faults.append(Fault("/login", status=503, delay_s=20.0))
    job = gitlab.enqueue(
        make_job(script=['echo "have $(cat $DB)"'], variables=variables(vault, jwt), secrets={"DB": of_vault(vault)})
    )
    wait_until(lambda: vault.calls, 60, "the call of the vault")
    manager.kill()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    ended = ended_of(gitlab, view)
    assert "have [MASKED]" in ended.lines
    assert ended.lines.count('Resolving secret "DB"...') == 1
    settled(gitlab, manager)


def test_a_job_that_has_begun_needs_no_vault_any_more(gitlab, make_manager, vault):
    """A manager that is killed between the start and its row finds the job at the agent, and asks nobody again."""
    manager = make_manager(idle=1).start()
    jwt = filled(vault, password=secrets.token_hex(12))
    job = gitlab.enqueue(
        make_job(
            script=["echo begun", "sleep 6", "echo ended"],
            variables=variables(vault, jwt),
            secrets={"DB": of_vault(vault)},
        )
    )
    gitlab.wait_for_trace(job, "begun", timeout=60)
    manager.kill()
    put_back(manager)
    vault.faults.append(Fault("/login", status=503, count=1000))
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    lines = ended_of(gitlab, view).lines
    assert (lines.count("begun"), lines.count("ended")) == (1, 1)
    settled(gitlab, manager)


def put_back(manager):
    """As if it had been killed before it wrote that the job runs."""
    with contextlib.closing(sqlite3.connect(manager.state / "fleet.sqlite")) as connection, connection:
        assert connection.execute("UPDATE jobs SET state = 'starting' WHERE state = 'running'").rowcount == 1
        connection.execute("UPDATE leases SET state = 'granted' WHERE state = 'running'")


def test_the_masks_of_a_secret_are_in_the_job_file_alone(place, vault):
    """What an operator can ask for shows no secret of a running job."""
    word = secrets.token_hex(16)
    jwt = filled(vault, password=word)
    job = place.enqueue("echo begun", "sleep 2", variables=variables(vault, jwt), secrets={"DB": of_vault(vault)})
    place.gitlab.wait_for_trace(job, "begun", timeout=60)
    rows = place.manager.rows("SELECT * FROM jobs")
    assert word not in json.dumps(rows, default=repr)
    assert word not in json.dumps(place.manager.rows("SELECT * FROM journal"), default=repr)
    assert place.ended(job).end == SUCCESS
