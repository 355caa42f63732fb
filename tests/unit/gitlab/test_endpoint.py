"""Endpoint: one spelling per server, and a clear no to what is none."""

import httpx
import pytest

from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.errors import EndpointError
from fleet.gitlab.proxy import proxy_for


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://gitlab.example.com/", "https://gitlab.example.com"),
        ("https://gitlab.example.com/ci", "https://gitlab.example.com"),
        ("https://gitlab.example.com/ci/", "https://gitlab.example.com"),
        ("https://example.com/gitlab//", "https://example.com/gitlab"),
        ("https://example.com/gitlab-ci", "https://example.com/gitlab-ci"),
        (" http://localhost:8080 ", "http://localhost:8080"),
    ],
)
def test_an_address_has_one_spelling(given, kept):
    assert Endpoint(url=given).url == kept


def test_equal_endpoints_are_one_key():
    assert Endpoint(url="https://a.example/", tls_ca_file="") == Endpoint(url="https://a.example/ci")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "gitlab.example.com",
        "ftp://gitlab.example.com",
        "https://",
        "https://a.example/?x=1",
        "https://a.example:port",
    ],
)
def test_what_is_no_address_is_refused_by_name(given):
    with pytest.raises(EndpointError, match="url"):
        Endpoint(url=given)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(EndpointError, match="remove it") as caught:
        Endpoint(url="https://me:hunter2@a.example")
    assert "hunter2" not in str(caught.value)


URL = httpx.URL("https://gitlab.example.com")


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "p:3128", "HTTPS_PROXY": "http://other:1"}, "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, None),
        ({"ALL_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.example, example.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".example.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "gitlab.example.com:443"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "gitlab.example.com:8443"}, "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "notexample.com,lab.example.com"}, "http://p:3128"),
    ],
)
def test_the_proxy_comes_from_the_environment(environment, proxy):
    found = proxy_for(URL, environment)
    assert (found and str(found)) == proxy


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:1"])
def test_loopback_never_goes_through_a_proxy(url):
    assert proxy_for(httpx.URL(url), {"HTTP_PROXY": "http://p:3128"}) is None


def test_a_network_can_be_exempt():
    environment = {"HTTP_PROXY": "http://p:3128", "NO_PROXY": "10.0.0.0/8"}
    assert proxy_for(httpx.URL("http://10.1.2.3"), environment) is None
    assert proxy_for(httpx.URL("http://11.1.2.3"), environment) is not None


def test_a_proxy_we_cannot_speak_to_is_named():
    with pytest.raises(EndpointError, match="socks5://p"):
        proxy_for(URL, {"ALL_PROXY": "socks5://p:1080"})
