"""Jobs in containers: a job's image, its services, volumes and network, by the CLI of Docker or Podman.

Rule: everything goes on while the manager is away, and everything that is made carries the label `fleet.lease`, by
which the end of the job, or `clean`, finds it again. What to make is in the job file; nothing is chosen here.
"""
