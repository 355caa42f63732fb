from __future__ import annotations

import dataclasses
import secrets
from typing import Any

import pytest

from fleet.execution.flags import DEFAULTS
from fleet.execution.git_credentials import config_text
from fleet.execution.git_wishes import ALL_REFS, GitWishes, Strategy, git_wishes, without_credentials
from fleet.execution.layout import default_layout
from fleet.execution.variables import Variables, definitions
from tests.contract.execution.job_inputs import LEASE, RUNNER, machine_at, payload_of

URL = "https://gitlab-ci-token:x@gitlab.example:8443/group/project.git"


def wished(
    variables: dict[str, str] | None = None,
    *,
    info: dict[str, Any] | None = None,
    flags: dict[str, bool] | None = None,
    token: str = "",
    **runner: Any,
) -> tuple[GitWishes, str]:
    """What the job wants, and git's configuration for it."""
    payload = payload_of(git_info={"repo_url": URL, **(info or {})}, variables=variables or {}, token=token)
    facts = dataclasses.replace(RUNNER, **runner)
    machine, on = machine_at("/h"), {**DEFAULTS, **(flags or {})}
    layout = default_layout(payload=payload, runner=facts, machine=machine, lease=LEASE)
    known = Variables(definitions(payload=payload, runner=facts, lease=LEASE, layout=layout, flags=on), tmp=layout.tmp)
    wishes = git_wishes(
        payload=payload, runner=facts, machine=machine, lease=dataclasses.replace(LEASE, correlation_id="c0ffee"),
        variables=known, flags=on, layout=layout,
    )  # fmt: skip
    return wishes, config_text(payload=payload, runner=facts, wishes=wishes, variables=known, flags=on)


def test_without_a_word_the_strategy_is_what_the_project_allows() -> None:
    wishes, _ = wished()
    assert wishes.strategy is Strategy.CLONE
    assert wishes.refspecs == ALL_REFS
    assert (wishes.clean_flags, wishes.fetch_flags) == (("-ffdx",), ("--prune", "--quiet"))
    assert wishes.depth == 0
    assert wished(info={"depth": -3})[0].depth == 0


def test_addresses_lose_their_credentials() -> None:
    assert wished()[0].remote == "https://gitlab.example:8443/group/project.git"
    assert without_credentials("http://a:b@c@host/x.git") == "http://host/x.git"
    assert without_credentials("/a/local/path.git") == "/a/local/path.git"


@pytest.mark.parametrize(
    ("variables", "remote"),
    [({}, "http://inner/x/group/project.git"), ({"CI_PROJECT_PATH": "a/b"}, "http://inner/x/a/b.git")],
)
def test_the_runners_clone_address_replaces_the_servers_part(variables: dict[str, str], remote: str) -> None:
    wishes, text = wished(variables, clone_url="http://inner/x/")
    assert wishes.remote == remote
    assert 'insteadOf = "http://inner/"' in text
    assert 'insteadOf = "https://gitlab.example:8443/"' in text


def test_what_speaks_to_the_server_says_who_it_is_and_for_which_request() -> None:
    options = wished()[0].request_options
    assert "http.extraHeader=X-Gitaly-Correlation-ID: c0ffee" in options
    assert "transfer.bundleURI=true" in options
    off = {"FF_USE_GITALY_CORRELATION_ID": False, "FF_USE_GIT_BUNDLE_URIS": False}
    options = wished(flags=off)[0].request_options
    assert not any("Gitaly" in option or "bundle" in option for option in options)


def test_the_token_stands_in_the_address_only_and_only_for_the_whole_host() -> None:
    token = secrets.token_hex(8) + "/+"
    _, text = wished(token=token)
    quoted = token.replace("/", "%2F").replace("+", "%2B")
    assert text == (
        f'[url "https://gitlab-ci-token:{quoted}@gitlab.example:8443/"]\n\tinsteadOf = "https://gitlab.example:8443/"\n'
    )


def test_without_tokens_in_addresses_a_helper_reads_the_variable() -> None:
    token = secrets.token_hex(8)
    _, text = wished(token=token, flags={"FF_GIT_URLS_WITHOUT_TOKENS": True})
    assert token not in text
    assert '[credential "https://gitlab.example:8443/"]\n\tusername = "gitlab-ci-token"\n\thelper = ""\n' in text
    assert "$CI_JOB_TOKEN" in text


def test_forced_https_knows_every_way_to_write_the_server() -> None:
    _, text = wished({"GIT_SUBMODULE_FORCE_HTTPS": "true"})
    assert 'insteadOf = "git@gitlab.example:"' in text
    assert 'insteadOf = "ssh://git@gitlab.example/"' in text
    ports = {"CI_SERVER_SHELL_SSH_HOST": "ssh.example", "CI_SERVER_SHELL_SSH_PORT": "2222"}
    _, text = wished({"GIT_SUBMODULE_FORCE_HTTPS": "true", **ports})
    assert 'insteadOf = "ssh://git@ssh.example:2222/"' in text


def test_tls_files_are_named_where_there_are_any() -> None:
    _, text = wished(tls_ca="PEM", tls_cert="PEM", tls_key="PEM")
    tmp = "/h/builds/abcdefghi/1/group/project.tmp"
    assert f'[http "https://gitlab.example:8443/"]\n\tsslCAInfo = "{tmp}/CI_SERVER_TLS_CA_FILE"\n' in text
    assert "sslCert" in text
    assert "sslKey" in text


@pytest.mark.parametrize(
    ("executor", "strategy", "setting", "cleans"),
    [
        ("instance", "fetch", None, True), ("shell", "fetch", None, False), ("instance", "none", None, False),
        ("shell", "fetch", True, True), ("instance", "fetch", False, False),
    ],
)  # fmt: skip
def test_the_repositorys_configuration_is_cleaned_as_gitlab_does(
    executor: str, strategy: str, setting: bool | None, cleans: bool
) -> None:
    wishes, _ = wished({"GIT_STRATEGY": strategy}, executor=executor, clean_git_config=setting)
    assert wishes.cleans_config is cleans
