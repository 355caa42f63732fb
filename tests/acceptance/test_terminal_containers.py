"""Interactive web terminals of jobs in containers: the shell is in the job's container, and leaves nothing behind."""

from __future__ import annotations

from fleet.demo.payload import make_job
from tests.acceptance.containers import manager_of
from tests.acceptance.test_terminal_session import Screen, session_server
from tests.docker.images import image


def test_a_person_types_into_the_container_of_a_running_job(gitlab, make_manager, docker_engine):
    manager = manager_of(make_manager, docker_engine)
    manager.write(manager.config.read_text() + "\n" + session_server())
    manager.start()
    script = ['echo be"gun"; until [ -e /tmp/flag ]; do sleep 0.2; done']
    job = gitlab.enqueue(make_job(image=image(docker_engine, "busy"), script=script, variables={"GREETING": "hello"}))
    gitlab.wait_for_trace(job, "begun\n", timeout=90)
    assert gitlab.job(job).features["terminal"] is True
    with gitlab.open_terminal(job) as connection:
        screen = Screen(connection)
        screen.type('echo "<$GREETING>" "<$CI_JOB_ID>" "<$PWD>"; grep app /etc/passwd\n')
        screen.shows(rf"<hello> <{job}> </builds/demo/project>\s+app:x:1234")
        screen.type("(while :; do sleep 1; echo x >>/tmp/alive; done) & echo st'arted'\n")
        screen.shows("started")
    with gitlab.open_terminal(job) as connection:
        screen = Screen(connection)
        count = "$(wc -c </tmp/alive)"
        screen.type(f'sleep 1; a={count}; sleep 3; b={count}; [ $a = $b ] && echo qu"i"et; touch /tmp/flag\n')
        screen.shows("quiet")
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.exit_code) == ("success", 0)
    assert b"hello" not in gitlab.trace(job)


def test_a_failed_job_waits_for_its_terminal_and_the_container_stays(gitlab, make_manager, docker_engine):
    manager = manager_of(make_manager, docker_engine)
    manager.write(manager.config.read_text() + "\n" + session_server())
    manager.start()
    script = ['echo be"gun"; until [ -e /tmp/flag ]; do sleep 0.2; done; exit 3']
    job = gitlab.enqueue(make_job(image=image(docker_engine, "busy"), script=script))
    gitlab.wait_for_trace(job, "begun\n", timeout=90)
    with gitlab.open_terminal(job) as connection:
        screen = Screen(connection)
        screen.type("touch /tmp/flag\n")
        screen.shows("The step is over")
        gitlab.wait_for_trace(job, "A terminal is open: the job waits for it", timeout=30)
        screen.shows("(?s)step is over.*# ")
        screen.type("ls /tmp/flag; echo st'il'l\n")
        screen.shows("still")
        assert gitlab.job(job).state == "running"
        screen.type("exit\n")
        assert screen.closes(60) == "the shell has ended"
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 3)
