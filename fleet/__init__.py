"""An autoscaling manager for GitLab CI jobs."""

__version__ = "0.1.0"
