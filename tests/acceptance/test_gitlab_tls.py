"""GitLab over TLS with an authority that nobody else knows: the manager's calls, and the jobs' own."""

from __future__ import annotations

import signal

import pytest
import trustme

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import make_job
from fleet.demo.state import Knobs
from tests.acceptance.manager import Manager, wait_until
from tests.acceptance.standing import ended_of, settled


@pytest.fixture
def ca(tmp_path):
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def gitlab(ca, tmp_path):
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(tmp_path / "cert.pem"), append=True)
    files = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with PretendGitLab(threads=32, tls=files, knobs=Knobs(update_interval_s=1)) as server:
        yield server
        assert server.violations() == []


@pytest.fixture
def make_manager(gitlab, tmp_path):
    made = []

    def make(**keywords):
        made.append(Manager(tmp_path / "m", gitlab, **keywords))
        return made[0]

    yield make
    for manager in made:
        manager.clear()


CALLS = (
    "cat README",
    'test -s "$CI_SERVER_TLS_CA_FILE" && echo has the authority',
    "git fetch -q origin && echo fetched",
)


def run_with_sources(gitlab, manager):
    source = gitlab.commit("demo/tls", {"README": "hello\n"})
    job = gitlab.enqueue(make_job(script=CALLS, git=source))
    (view,) = gitlab.wait_for(job, timeout=60)
    settled(gitlab, manager)
    return ended_of(gitlab, view)


def test_a_private_authority_from_the_file_serves_the_manager_and_git_in_the_jobs(gitlab, make_manager, tmp_path):
    manager = make_manager(runner_keys=f'tls-ca-file = "{tmp_path}/ca.pem"').start()
    ended = run_with_sources(gitlab, manager)
    assert ended.end == ("success", "", 0)
    assert {"hello", "has the authority", "fetched"} <= set(ended.lines)


def test_an_authority_of_this_host_is_handed_to_machines_that_do_not_know_it(gitlab, make_manager, tmp_path):
    manager = make_manager()
    manager.environment["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    manager.start()
    ended = run_with_sources(gitlab, manager)
    assert ended.end == ("success", "", 0)
    assert {"hello", "has the authority", "fetched"} <= set(ended.lines)


def test_an_unknown_authority_is_named_and_asked_again_when_the_file_is_there(gitlab, make_manager, tmp_path):
    manager = make_manager().start()
    wait_until(lambda: manager.events("poll_failed"), 30, "the refusal")
    assert "certificate" in manager.events("poll_failed")[0]["reason"]
    assert manager.events("runner_unhealthy") == []
    job = gitlab.enqueue(make_job(script=["true"]))
    manager.write(
        manager.config.read_text().replace("request_conc", f'tls-ca-file = "{tmp_path}/ca.pem"\nrequest_conc')
    )
    manager.send(signal.SIGHUP)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    settled(gitlab, manager)
