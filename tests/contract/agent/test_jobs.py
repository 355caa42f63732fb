"""A job runs its stages as real processes, and its log and result come back."""

from __future__ import annotations


def test_a_job_runs_its_steps_in_order_and_succeeds(machine) -> None:
    result, log = machine.run(machine.job("echo one", "echo two"))
    assert result == {"outcome": "success", "reason": None, "exit_code": 0, "message": "", "stage": "step_2"}
    assert log == "one\ntwo\n"
