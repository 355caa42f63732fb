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
        assert screen.closes(60) in {"the shell has ended", "the job is over"}
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.exit_code) == ("success", 0)
    assert b"hello" not in gitlab.trace(job)
