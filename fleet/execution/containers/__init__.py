"""From a job's payload and the runner's `[runners.docker]` to the part `containers` of the job file.

Rule: pure, as all rendering. What the settings do not allow is refused here, before anything has happened.
"""
