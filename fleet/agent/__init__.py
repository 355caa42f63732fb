"""The agent: runs on the machines and owns the processes of jobs.

Rule: Python's standard library only, Python 3.8 or newer, nothing of the rest of fleet. What must hold between agent
and manager stands in docs/reference/agent-frames.md. It leaves to the manager what a job is and what becomes of it.
"""

PROTOCOL = 1
VERSION = "0.1.0"
