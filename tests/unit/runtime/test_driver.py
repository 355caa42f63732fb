"""Controllers run at their period, never twice at once, early when hinted, and whatever they raise."""

from __future__ import annotations

import threading
import time

import pytest
from structlog.testing import capture_logs

from fleet.runtime.driver import Controller, Driver, Hints
from fleet.sdk import FleetError
from tests.acceptance.manager import wait_until


@pytest.fixture
def driver():
    made = Driver()
    yield made
    made.close(5)


class Counted:
    """A controller's work that counts itself, and may be held up."""

    def __init__(self) -> None:
        self.runs = 0
        self.at_once = 0
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()

    def __call__(self) -> int:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.gate.wait(30)
        with self.lock:
            self.at_once -= 1
            self.runs += 1
        return self.runs


def added(driver: Driver, period_s: float, activate, name: str = "c") -> Controller:
    controller = Controller(name=name, period_s=period_s, activate=activate)
    driver.add(controller)
    return controller


def test_it_runs_at_the_start_and_then_at_its_period(driver):
    work = Counted()
    controller = added(driver, 0.2, work)
    driver.start()
    began = time.monotonic()
    wait_until(lambda: work.runs >= 4, 10)
    assert time.monotonic() - began >= 0.5
    assert controller.status == work.runs
    assert controller.failures == 0


def test_a_hint_runs_it_early(driver):
    work = Counted()
    added(driver, 3600, work)
    driver.start()
    wait_until(lambda: work.runs == 1, 5)
    driver.wake("c", "unknown")
    wait_until(lambda: work.runs == 2, 5)


def test_hints_while_it_runs_make_it_run_once_more_and_never_twice_at_once(driver):
    work = Counted()
    work.gate.clear()
    controller = added(driver, 3600, work)
    driver.start()
    wait_until(lambda: controller.running, 5)
    for _ in range(20):
        driver.wake("c")
    work.gate.set()
    wait_until(lambda: work.runs == 2, 5)
    time.sleep(0.3)
    assert (work.runs, work.most) == (2, 1)


def test_many_hints_from_many_threads_lose_nothing(driver):
    seen, asked = [0], [0]

    def look() -> None:
        seen[0] = asked[0]

    added(driver, 3600, look)
    driver.start()

    def hint() -> None:
        for _ in range(200):
            asked[0] += 1
            driver.wake("c")

    threads = [threading.Thread(target=hint) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: seen[0] == asked[0], 5, "the run after the last hint")


def test_one_that_hangs_holds_up_no_other(driver):
    stuck, other = Counted(), Counted()
    stuck.gate.clear()
    added(driver, 3600, stuck, "stuck")
    added(driver, 0.1, other, "other")
    driver.start()
    wait_until(lambda: other.runs >= 3, 5)
    stuck.gate.set()


def test_an_alarm_runs_it_before_its_period(driver):
    work = Counted()
    added(driver, 3600, work)
    driver.start()
    wait_until(lambda: work.runs == 1, 5)
    driver.wake_in("c", 0.2)
    driver.wake_in("c", 3000)  # a later one takes nothing back
    driver.wake_in("unknown", 0)
    wait_until(lambda: work.runs == 2, 5)


def test_what_it_is_hindered_by_is_told_once_and_so_is_its_end(driver):
    problem: list[str | None] = ["the database is away"]
    runs = [0]

    def work() -> None:
        runs[0] += 1
        if problem[0] is not None:
            raise FleetError(problem[0])

    controller = added(driver, 0.05, work)
    with capture_logs() as lines:
        driver.start()
        wait_until(lambda: runs[0] >= 4, 5)
        assert controller.problem == "the database is away"
        problem[0] = None
        wait_until(lambda: controller.problem is None, 5)
    assert [line["event"] for line in lines] == ["controller_hindered", "controller_goes_on"]
    assert controller.failures >= 4


def test_a_bug_is_told_and_it_runs_again():
    bugs = []
    driver = Driver(lambda name, exc: bugs.append((name, type(exc))))

    def work() -> None:
        raise ZeroDivisionError

    added(driver, 0.05, work)
    driver.start()
    wait_until(lambda: len(bugs) >= 3, 5)
    driver.close()
    assert bugs[0] == ("c", ZeroDivisionError)


def test_closing_waits_for_what_runs_but_not_for_ever():
    driver, work = Driver(), Counted()
    work.gate.clear()
    controller = added(driver, 0.1, work)
    driver.start()
    wait_until(lambda: controller.running, 5)
    assert not driver.close(0.2)
    work.gate.set()
    assert driver.close(5)
    runs = work.runs
    driver.wake("c")
    driver.wake_in("c", 0)
    time.sleep(0.3)
    assert work.runs == runs


def test_a_driver_that_was_never_started_can_be_closed():
    assert Driver().close(1)


def test_hints_reach_nobody_before_they_are_connected(driver):
    hints, woken = Hints(), []
    hints("plan")
    hints.connect(lambda *names: woken.append(names))
    hints("plan", "reap")
    assert woken == [("plan", "reap")]
