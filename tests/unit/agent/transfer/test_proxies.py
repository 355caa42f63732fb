"""Which proxy a request goes through."""

from __future__ import annotations

import base64

import pytest

from fleet.agent.transfer.http import is_downgrade, may_tell
from fleet.agent.transfer.proxies import proxy_for

PROXY = {"http_proxy": "http://proxy:3128", "HTTPS_PROXY": "http://secure:3129"}


def test_each_scheme_has_its_own():
    found = proxy_for("http", "gitlab.example.com", 80, PROXY)
    assert found is not None
    assert (found.host, found.port) == ("proxy", 3128)
    found = proxy_for("https", "gitlab.example.com", 443, PROXY)
    assert found is not None
    assert (found.host, found.port) == ("secure", 3129)
    assert proxy_for("https", "gitlab.example.com", 443, {"http_proxy": "http://proxy:1"}) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_none(host):
    assert proxy_for("http", host, 80, PROXY) is None


@pytest.mark.parametrize(
    ("excepted", "host"),
    [
        ("*", "gitlab.example.com"),
        ("example.com", "gitlab.example.com"),
        (".example.com", "gitlab.example.com"),
        ("*.example.com", "gitlab.example.com"),
        ("gitlab.example.com", "gitlab.example.com"),
        ("x, GITLAB.example.com ,y", "gitlab.example.com"),
        ("gitlab.example.com:80", "gitlab.example.com"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
    ],
)
def test_no_proxy_excepts(excepted, host):
    assert proxy_for("http", host, 80, {**PROXY, "no_proxy": excepted}) is None


@pytest.mark.parametrize(
    ("excepted", "host"),
    [
        ("example.com", "gitlabexample.com"),
        (".example.com", "example.com"),
        ("gitlab.example.com:8080", "gitlab.example.com"),
        ("10.0.0.0/8", "11.1.2.3"),
        ("10.0.0.0/8", "gitlab.example.com"),
        ("", "gitlab.example.com"),
    ],
)
def test_no_proxy_does_not_except(excepted, host):
    assert proxy_for("http", host, 80, {**PROXY, "NO_PROXY": excepted}) is not None


def test_a_proxys_password_becomes_a_header():
    found = proxy_for("http", "gitlab.example.com", 80, {"HTTP_PROXY": "me:p%40ss@proxy:1"})
    assert found is not None
    assert base64.b64decode(found.headers["Proxy-Authorization"].partition(" ")[2]) == b"me:p@ss"


def test_a_web_servers_environment_is_not_believed():
    assert proxy_for("http", "gitlab.example.com", 80, {**PROXY, "REQUEST_METHOD": "GET"}) is None


@pytest.mark.parametrize(
    ("here", "there", "may"),
    [
        ("https://gitlab/x", "https://gitlab/y", True),
        ("http://gitlab/x", "https://gitlab/y", True),
        ("https://gitlab/x", "http://gitlab/y", False),
        ("https://gitlab/x", "https://storage/y", False),
        ("https://gitlab/x", "https://gitlab:9000/y", False),
        ("http://gitlab:80/x", "http://gitlab/y", True),
        ("https://gitlab/x", "https://gitlab.evil.com/y", False),
    ],
)
def test_a_token_goes_only_to_gitlab_itself(here, there, may):
    assert may_tell(here, there) is may


def test_tls_is_never_given_up():
    assert is_downgrade("https", "http")
    assert not is_downgrade("http", "https")
