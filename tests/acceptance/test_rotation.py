"""A runner's token is renewed before it ends, in the store and in the file, and jobs go on."""

from __future__ import annotations

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until


def expiring(gitlab, manager, *, obtained, expires):
    text = manager.config.read_text()
    head, _, tail = text.partition('executor = "instance"')
    life = f"token_obtained_at = {obtained}\ntoken_expires_at = {expires}\n"
    manager.write(f'{head}{life}# kept as it is\nexecutor = "instance"{tail}')


def test_a_token_past_three_quarters_of_its_life_is_renewed_and_saved(gitlab, make_manager):
    manager = make_manager()
    old = manager.runner["token"]
    expiring(gitlab, manager, obtained="2026-01-01T00:00:00Z", expires="2026-01-02T00:00:00Z")
    manager.start()
    wait_until(lambda: old not in manager.config.read_text(), 20, "the renewal")
    text = manager.config.read_text()
    assert "# kept as it is" in text
    assert "2026-01-02" not in text or "token_expires_at" not in text
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    assert len(manager.events("token_renewed")) == 1
    assert manager.events("configuration_reloaded") == []
    assert old not in manager.log()


def test_law_1_a_renewal_removes_no_machine_of_a_running_job(gitlab, make_manager):
    manager = make_manager().start()
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 6", "echo ended"]))
    gitlab.wait_for_trace(job, "begun", timeout=30)
    expiring(gitlab, manager, obtained="2026-01-01T00:00:00Z", expires="2026-01-02T00:00:00Z")
    wait_until(lambda: manager.events("configuration_reloaded"), 20, "the reload")
    (view,) = gitlab.wait_for(job, timeout=30)
    assert (view.state, view.attempts) == ("success", 1)
    assert len(manager.rows("SELECT * FROM instances")) == 1
