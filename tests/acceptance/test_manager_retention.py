"""What is over is forgotten after its time; what is not over is never forgotten."""

from __future__ import annotations

import signal

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.test_reload_runners import rewrite
from tests.acceptance.test_signals import counted, counting, lines

SHORT = 'journal_retention = "1s"\nfinished_retention = "1s"\ngone_retention = "1s"'


def test_old_rows_are_pruned_and_a_running_job_is_not_touched(gitlab, make_manager):
    manager = make_manager(idle_time="0s", machines=3).start()
    ended = [gitlab.enqueue(make_job(script=["true"])) for _ in range(2)]
    gitlab.wait_for(*ended, timeout=60)
    job = gitlab.enqueue(counting(12))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    wait_until(lambda: manager.rows("SELECT * FROM instances WHERE state = 'gone'"), 40, "a machine that is gone")
    assert len(manager.rows("SELECT * FROM jobs")) == 3
    old = manager.rows("SELECT max(seq) AS seq FROM journal")[0]["seq"]
    text = manager.config.read_text()
    rewrite(manager, text.replace("reserve_free_bytes = 0", f"reserve_free_bytes = 0\n{SHORT}"))
    wait_until(lambda: len(manager.rows("SELECT * FROM jobs")) == 1, 40, "the end of the old rows")

    def pruned_again() -> bool:
        manager.send(signal.SIGHUP)  # reads the file again, and looks for what is over
        gone = manager.rows("SELECT * FROM instances WHERE state = 'gone'")
        return not gone and not manager.rows("SELECT * FROM journal WHERE seq < ?", old)

    wait_until(pruned_again, 20, "the end of the last old rows")
    assert manager.rows("SELECT gitlab_job_id FROM jobs") == [{"gitlab_job_id": job}]
    assert len(manager.rows("SELECT * FROM leases WHERE state = 'running'")) == 1
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    assert counted(gitlab, job) == lines(12)
    wait_until(lambda: not list((manager.state / "spool").glob("*.trace")), 20, "the end of the spool files")
    manager.kill()
    manager.start()
    last = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(last, timeout=40)
    assert manager.events("database_restored") == [], "forgetting is not mistaken for a restored database"
