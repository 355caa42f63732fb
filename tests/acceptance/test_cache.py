"""Caches of jobs through a real manager, agents and a store: what one job saved the next one finds."""

from __future__ import annotations

import os
import pathlib
import secrets
from collections.abc import Iterator

import boto3
import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.clouds import servers

ROLE = "arn:aws:iam::123456789012:role/cache"
ONE_JOB_EACH = "max_use_count = 1"


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    with servers.moto() as address:
        yield address


class Bucket:
    """A bucket of one test, seen by its owner."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.name = f"cache-{secrets.token_hex(6)}"
        self.secret = secrets.token_hex(20)
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://{server}",
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key=self.secret,
        )
        self.client.create_bucket(Bucket=self.name)

    def table(self, more: str = "", store: str = "") -> str:
        """The runner's keys."""
        return f"""
  [runners.cache]
  Type = "s3"
  {more}
    [runners.cache.s3]
    ServerAddress = "{self.server}"
    Insecure = true
    AccessKey = "tests"
    SecretKey = "{self.secret}"
    BucketName = "{self.name}"
    BucketLocation = "us-east-1"
    {store}
"""

    def objects(self) -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {each["Key"]: each["Size"] for each in found}


@pytest.fixture
def bucket(moto_server: str) -> Iterator[Bucket]:
    made = Bucket(moto_server)
    yield made
    made.client.close()


def cached(script, *, key="k", paths=("deps",), job_name="job", variables=(), timeout=3600, **cache):
    """A job with one cache."""
    entry = {
        "key": key, "untracked": False, "policy": "pull-push", "paths": list(paths), "when": "on_success",
        "fallback_keys": [], **cache,
    }  # fmt: skip
    return make_job(script=script, cache=[entry], name=job_name, variables=variables, timeout=timeout)


def run(gitlab, job, *, state="success", timeout=60):
    """The lines that the job printed, once it has ended."""
    number = gitlab.enqueue(job)
    (view,) = gitlab.wait_for(number, timeout=timeout)
    lines = output_lines(gitlab.trace(number))
    assert view.state == state, "\n".join(lines)
    return lines


def has(lines, *words):
    return any(all(word in line for word in words) for line in lines)


WRITE = [
    "mkdir -p deps/bin",
    "echo kept > deps/one",
    "printf '#!/bin/sh\\n' > deps/bin/tool",
    "chmod 755 deps/bin/tool",
]
READ = ["cat deps/one", "test -x deps/bin/tool"]


def files_with(directory: pathlib.Path, secret: str) -> list[pathlib.Path]:
    """The files below that hold a secret."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if secret.encode() in path.read_bytes()]


def processes_with(secret: str) -> list[pathlib.Path]:
    """Processes of jobs whose environment or arguments hold a secret."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"FLEET_LEASE=" in told[0] and any(secret.encode() in each for each in told):
            found.append(process)
    return found


def test_a_cache_goes_from_machine_to_machine_through_s3_and_the_keys_of_the_bucket_stay_at_home(
    gitlab, make_manager, bucket
):
    manager = make_manager(machines=4, pool_keys=ONE_JOB_EACH, runner_keys=bucket.table('Path = "team"')).start()
    first = run(gitlab, cached([*WRITE, "echo machine $HOME"]))
    assert has(first, "Saved cache k on this machine")
    assert has(first, "Uploaded cache k")
    (name,) = bucket.objects()
    assert name.startswith("team/runner/")
    assert name.endswith("/project/7/k")
    held = ["env", *READ, "echo machine $HOME", "until [ -e $HOME/go ]; do sleep 0.1; done"]
    job = gitlab.enqueue(cached(held, policy="pull"))
    gitlab.wait_for_trace(job, "machine /", timeout=60)
    lines = output_lines(gitlab.trace(job))
    assert "kept" in lines
    assert has(lines, "Restored cache k")
    homes = [next(line for line in found if line.startswith("machine /")) for found in (first, lines)]
    assert homes[0] != homes[1]
    home = pathlib.Path(homes[1].removeprefix("machine "))
    assert files_with(home, bucket.secret) == []
    assert files_with(home, "X-Amz-Signature") == []
    assert processes_with(bucket.secret) == []
    (home / "go").touch()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    told = "\n".join([*first, *output_lines(gitlab.trace(job)), manager.log()])
    assert "Saving cache" not in told.split("Restored cache")[-1]
    assert bucket.secret not in told
    assert "X-Amz-Signature" not in told


def test_without_a_store_the_next_job_on_the_machine_finds_it(gitlab, make_manager):
    make_manager(machines=1).start()
    assert has(run(gitlab, cached(WRITE)), "Saved cache k on this machine")
    lines = run(gitlab, cached(READ))
    assert "kept" in lines
    assert not has(lines, "WARNING")


def test_the_first_fallback_that_is_there_is_taken_and_the_jobs_own_key_is_saved(gitlab, make_manager, bucket):
    make_manager(machines=2, pool_keys=ONE_JOB_EACH, runner_keys=bucket.table()).start()
    run(gitlab, cached(WRITE, key="main"))
    lines = run(gitlab, cached(READ, key="branch", fallback_keys=["none", "main"]))
    assert has(lines, "There is no cache branch")
    assert has(lines, "There is no cache none")
    assert has(lines, "Restored cache main")
    assert {name.rsplit("/", 1)[1] for name in bucket.objects()} == {"main", "branch"}
    variables = [{"key": "CACHE_FALLBACK_KEY", "value": "main"}]
    assert has(run(gitlab, cached(READ, key="other", variables=variables)), "Restored cache main")


def test_a_corrupted_object_is_told_and_removed_and_the_job_goes_on(gitlab, make_manager, bucket):
    manager = make_manager(machines=1, runner_keys=bucket.table()).start()
    run(gitlab, cached(WRITE))
    (name,) = bucket.objects()
    bucket.client.put_object(Bucket=bucket.name, Key=name, Body=b"PK this is no archive at all")
    (local,) = (manager.state / "local" / "machines").rglob("cache.zip")
    older = local.stat().st_mtime - 60
    os.utime(local, (older, older))
    lines = run(gitlab, cached(["echo went on"], policy="pull"))
    assert has(lines, "WARNING", "cannot be unpacked and is removed")
    assert "went on" in lines
    assert not local.exists()


def test_two_jobs_with_one_key_on_one_machine_at_once_see_whole_archives(gitlab, make_manager):
    make_manager(machines=1, capacity=2).start()
    fill = "mkdir -p deps; for i in $(seq 300); do head -c 3000 /dev/urandom > deps/$i; done; (cd deps && $SUMS)"
    fill = fill.replace("$SUMS", "sha256sum [0-9]* > sums")
    check = "if [ -e deps/sums ]; then (cd deps && sha256sum --quiet -c sums) && echo whole; else echo none; fi"
    run(gitlab, cached([fill]))
    for _ in range(2):
        numbers = [gitlab.enqueue(cached([check, "rm -rf deps", fill])) for _ in range(3)]
        views = gitlab.wait_for(*numbers, timeout=90)
        assert [view.state for view in views] == ["success"] * 3
        for number in numbers:
            lines = output_lines(gitlab.trace(number))
            assert "whole" in lines
            assert has(lines, "Saved cache k on this machine")


@pytest.mark.parametrize(
    ("when", "saved_by"), [("on_failure", "failed"), ("always", "both"), ("on_success", "success")]
)
def test_when_says_which_end_is_saved(gitlab, make_manager, when, saved_by):
    make_manager(machines=1).start()
    good = run(gitlab, cached(WRITE, key="good", when=when))
    bad = run(gitlab, cached([*WRITE, "exit 3"], key="bad", when=when), state="failed")
    assert (has(good, "Saved cache good"), has(bad, "Saved cache bad")) == (
        saved_by in {"success", "both"}, saved_by in {"failed", "both"},
    )  # fmt: skip


def test_an_archive_that_is_too_large_stays_on_the_machine(gitlab, make_manager, bucket):
    make_manager(machines=1, runner_keys=bucket.table("MaxUploadedArchiveSize = 5000")).start()
    big = ["mkdir -p deps", "head -c 20000 /dev/urandom > deps/one"]
    lines = run(gitlab, cached(big))
    assert has(lines, "WARNING", "larger than 4.9 KiB")
    assert bucket.objects() == {}
    assert has(run(gitlab, cached(["wc -c deps/one"])), "20000 deps/one")


def test_a_store_that_is_away_costs_no_job_its_success(gitlab, make_manager, bucket):
    table = bucket.table().replace(bucket.server, "127.0.0.1:9")
    make_manager(machines=1, runner_keys=table).start()
    lines = run(gitlab, cached(WRITE))
    assert has(lines, "WARNING", "cannot be reached", "it is tried again")
    assert has(lines, "WARNING", "the cache was not uploaded")
    assert "kept" in run(gitlab, cached(READ))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('[runners.cache]\nType = "s3"\n[runners.cache.s3]\nServerAddress = "x"\n', "BucketName must be set"),
        (
            '[runners.cache]\nType = "gcs"\n[runners.cache.gcs]\nBucketName="b"\nCredentialsFile="none.json"\n',
            "cannot be read",
        ),
    ],
)
def test_a_store_that_cannot_be_had_is_told_in_the_log_of_the_job(gitlab, make_manager, table, words):
    make_manager(machines=1, runner_keys=table).start()
    lines = run(gitlab, cached(WRITE))
    assert has(lines, "WARNING", words)
    assert "kept" in run(gitlab, cached(READ))


def asking(manager, bucket):
    """A manager whose credentials end before a long job does, so that the job asks just before use."""
    manager.environment |= {"AWS_ENDPOINT_URL_STS": f"http://{bucket.server}"}
    return manager


def test_a_job_asks_for_an_address_when_the_credentials_end_before_it(gitlab, make_manager, bucket):
    table = bucket.table(store=f'RoleARN = "{ROLE}"')
    manager = asking(make_manager(machines=2, pool_keys=ONE_JOB_EACH, runner_keys=table), bucket).start()
    assert has(run(gitlab, cached(WRITE, timeout=7200)), "Uploaded cache k")
    lines = run(gitlab, cached(READ, timeout=7200))
    assert "kept" in lines
    assert not has(lines, "WARNING")
    asked = manager.events("sign_answered")
    assert len(asked) == 4  # each restores and saves
    assert not any(each["refused"] for each in asked)


def test_a_question_that_a_killed_manager_did_not_answer_is_answered_by_the_next(gitlab, make_manager, bucket):
    table = bucket.table(store=f'RoleARN = "{ROLE}"')
    manager = asking(make_manager(machines=1, runner_keys=table), bucket).start()
    held = [*WRITE, "echo machine $HOME", "until [ -e $HOME/go ]; do sleep 0.1; done"]
    job = gitlab.enqueue(cached(held, timeout=7200))
    gitlab.wait_for_trace(job, "machine /", timeout=60)
    lines = output_lines(gitlab.trace(job))
    home = pathlib.Path(next(line for line in lines if line.startswith("machine /")).removeprefix("machine "))
    manager.kill()
    (home / "go").touch()
    wait_until(lambda: list(home.rglob("signs/*.ask")), 30, "the question")
    assert bucket.objects() == {}
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    lines = output_lines(gitlab.trace(job))
    assert view.state == "success"
    assert has(lines, "Uploaded cache k")
    assert list(bucket.objects()) != []
