"""The stop sign."""

import select
import threading

from fleet.gitlab.cancel import Cancel


def test_it_is_unset_until_set_and_then_for_ever():
    with Cancel() as cancel:
        assert not cancel.is_set()
        assert not cancel.wait(0.01)
        cancel.set()
        cancel.set()
        assert cancel.is_set()
        assert cancel.wait(60)


def test_it_wakes_all_that_wait_also_next_to_a_socket():
    with Cancel() as cancel:
        woken = []

        def wait():
            woken.append(cancel.wait(60))

        def poll():
            poller = select.poll()
            poller.register(cancel, select.POLLIN)
            woken.append(bool(poller.poll(60_000)))

        threads = [threading.Thread(target=target) for target in (wait, wait, poll, poll)]
        for thread in threads:
            thread.start()
        cancel.set()
        for thread in threads:
            thread.join()
        assert woken == [True] * 4


def test_setting_a_closed_one_harms_nobody():
    cancel = Cancel()
    cancel.close()
    cancel.set()
    cancel.close()
