"""The pretend GitLab as a process of its own, with TLS, and its ends of life."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import ssl
import subprocess
import sys

import httpx
import pytest
import trustme

from fleet.demo.controls import RemoteGitLab
from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import make_job
from tests.contract.pretend_gitlab.raw_runner import RawRunner


def test_it_serves_in_its_own_process_and_is_driven_over_http(tmp_path):
    state_file = tmp_path / "state.json"
    command = [sys.executable, "-m", "fleet.demo.gitlab", "--port", "0", "--threads", "4", "--hold-s", "0"]
    with subprocess.Popen([*command, "--state-file", state_file], stdout=subprocess.PIPE, text=True) as process:
        try:
            gitlab = RemoteGitLab(json.loads(process.stdout.readline())["url"])
            runner = RawRunner(gitlab.url, gitlab.create_runner()["token"])
            queued = gitlab.enqueue(make_job(), marker="hello")
            job = runner.take_and_acknowledge()
            job.patch(b"hello\n")
            assert gitlab.wait_for_trace(queued, "hello", timeout=5) == b"hello\n"
            with pytest.raises(TimeoutError, match="1001 running"):
                gitlab.wait_for(queued, timeout=0.1)
            job.finish()
            (view,) = gitlab.wait_for(queued, timeout=5)
            assert (view.state, view.is_ended, view.marker_at is not None) == ("success", True, True)
            assert view == gitlab.jobs()[0]
            job.put("running")
            assert len(gitlab.violations()) == 1
            with pytest.raises(ValueError, match="no verb 'nonsense'"):
                gitlab.call("nonsense")
            with pytest.raises(ValueError, match="KeyError"):
                gitlab.job(9)
            runner.close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    told = json.loads(state_file.read_text())
    assert told["jobs"][0]["state"] == "success"
    assert len(told["violations"]) == 1


def test_it_speaks_tls_with_a_private_authority(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    with PretendGitLab(threads=4, tls=(cert, key)) as gitlab:
        assert gitlab.url.startswith("https://127.0.0.1:")
        runner = RawRunner(gitlab.url, gitlab.create_runner()["token"], verify=ssl.create_default_context(cafile=ca))
        RemoteGitLab(gitlab.url, ca_file=ca).enqueue(make_job())
        job = runner.take_and_acknowledge()
        gitlab.add_fault("reset_body", "trace")
        with pytest.raises(httpx.TransportError):
            job.patch(b"x" * 100_000)
        job.patch(b"secret\n")
        assert job.finish().status_code == 200
        assert gitlab.violations() == []
        runner.close()
        stranger = RawRunner(gitlab.url, runner.token)
        with pytest.raises(httpx.ConnectError):
            stranger.poll()
        stranger.close()


def test_a_stop_answers_held_polls(gitlab, runner):
    gitlab.set_knobs(hold_s=60)
    runner.poll()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(runner.poll)
        assert concurrent.futures.wait([held], timeout=0.3).not_done
        gitlab.stop()
        assert held.result(10).status_code == 204
