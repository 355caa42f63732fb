"""A configuration file that is broken, gone, only touched or written by us changes nothing, and is told."""

from __future__ import annotations

import os
import signal

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
