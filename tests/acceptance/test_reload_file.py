"""A configuration file that is broken, gone, only touched or written by us changes nothing, and is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.test_reload_runners import rewrite
from tests.acceptance.test_rotation import expiring


def works(gitlab) -> None:
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=40)
    assert view.state == "success"


def refused(manager) -> list[str]:
    return [each["error"] for each in manager.events("configuration_not_reloaded")]


def test_a_broken_file_keeps_the_old_configuration_until_it_is_mended(gitlab, make_manager):
    manager = make_manager().start()
    works(gitlab)
    good = manager.config.read_text()
    for broken, why in (
        ("concurrent = [", "is not TOML"),
        (good.replace("max_instances", "max_instnces"), "max_instances"),
        (good.replace('idle_time = "30s"', 'idle_time = "soon"'), "idle_time"),
    ):
        count = len(refused(manager))
        manager.write(broken)
        wait_until(lambda count=count: len(refused(manager)) > count, 20, "the refusal")
        assert why in refused(manager)[-1]
        assert f"{manager.config}:" in refused(manager)[-1], "the file and the line are named"
        works(gitlab)
    rewrite(manager, good.replace("concurrent = 50", "concurrent = 49"))
    works(gitlab)
    assert "Traceback" not in manager.log()


def test_a_file_that_goes_back_to_what_is_in_force_is_no_news(gitlab, make_manager):
    manager = make_manager().start()
    works(gitlab)
    good = manager.config.read_text()
    manager.write("concurrent = [")
    wait_until(lambda: refused(manager), 20, "the refusal")
    manager.write(good)
    wait_until(lambda: manager.events("configuration_as_before"), 20, "the word that all is well again")
    assert manager.events("configuration_reloaded") == []


def test_a_file_that_is_gone_or_cannot_be_read_keeps_the_old_configuration(gitlab, make_manager):
    manager = make_manager().start()
    works(gitlab)
    good = manager.config.read_text()
    manager.config.unlink()
    wait_until(lambda: any("no such file" in each for each in refused(manager)), 20, "the refusal")
    works(gitlab)
    manager.config.mkdir()
    wait_until(lambda: any("cannot be read" in each for each in refused(manager)), 20, "the second refusal")
    works(gitlab)
    manager.config.rmdir()
    rewrite(manager, good.replace("concurrent = 50", "concurrent = 49"))
    works(gitlab)
    assert "Traceback" not in manager.log()


def test_status_says_that_a_broken_file_is_not_in_force(gitlab, make_manager):
    manager = make_manager()
    good = manager.config.read_text()
    manager.start()
    works(gitlab)
    url = (manager.state / "api.address").read_text().strip()

    def problem() -> str | None:
        with urllib.request.urlopen(f"{url}/api/v1/status", timeout=20) as answer:
            return json.load(answer)["manager"]["file_problem"]

    assert problem() is None
    manager.write(good.replace("max_instances", "max_instnces"))
    told = wait_until(problem, 20, "the word in the status")
    assert "max_instnces" in told
    manager.write(good)
    wait_until(lambda: problem() is None, 20, "the word that all is well again")


def test_the_addresses_that_it_listens_on_move_with_the_file(gitlab, make_manager):
    manager = make_manager(top=f'listen_address = "127.0.0.1:{free_port()}"').start()
    works(gitlab)
    text = manager.config.read_text()
    (old,) = [each["metrics"] for each in manager.events("web_started")]
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        taken = f"127.0.0.1:{somebody.getsockname()[1]}"
        rewrite(manager, text.replace(old.removeprefix("http://"), taken))
        told = wait_until(lambda: manager.events("address_not_changed"), 20, "the word that it is taken")
        assert taken in told[0]["error"]
        assert is_answered(old)
    wait_until(lambda: is_answered(f"http://{taken}"), 20, "the new address, which is free now")
    wait_until(lambda: not is_answered(old), 20, "the end of the old one")
    assert len(manager.events("address_not_changed")) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_answered(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_broken_file_is_told_at_sighup_too(gitlab, make_manager):
    manager = make_manager().start()
    works(gitlab)
    manager.write("concurrent = [")
    manager.send(signal.SIGHUP)
    wait_until(lambda: refused(manager), 20, "the refusal")
    count = len(refused(manager))
    manager.send(signal.SIGHUP)
    wait_until(lambda: len(refused(manager)) > count, 20, "the second refusal")
    works(gitlab)


def test_a_touched_file_and_our_own_writes_are_no_reason_to_reload(gitlab, make_manager):
    manager = make_manager()
    old = manager.runner["token"]
    expiring(gitlab, manager, obtained="2026-01-01T00:00:00Z", expires="2026-01-02T00:00:00Z")
    manager.start()
    wait_until(lambda: old not in manager.config.read_text(), 20, "our own write")
    os.utime(manager.config)
    works(gitlab)
    os.utime(manager.config, (1, 1))
    works(gitlab)
    assert manager.events("configuration_reloaded") == []
    ours = manager.config.read_text()
    rewrite(manager, ours.replace("concurrent = 50", "concurrent = 49"))
    rewrite(manager, ours)  # back to the very bytes that we wrote, but not what is in force
    works(gitlab)
