"""What rendering is told of a runner: the one place where settings become facts of execution."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Mapping
from datetime import timedelta

from fleet import __version__
from fleet.execution.containers.options import SECCOMP
from fleet.execution.containers.volumes import covers_builds
from fleet.execution.facts import CacheFacts, RunnerFacts
from fleet.gitlab.info import architecture_name, platform_name
from fleet.runtime.registry_logins import registry_logins
from fleet.settings.docker import DockerTable
from fleet.settings.entries import CONTAINER_EXECUTORS
from fleet.store.book import Runner

BUILDS, CACHE = "/builds", "/cache"  # in containers


def facts_of_runner(runner: Runner, beside: Mapping[str, str], system_id: str) -> RunnerFacts:
    """The facts of a runner for one job; `beside` is what came with the job's payload."""
    settings = runner.settings
    docker = settings.docker if settings.executor in CONTAINER_EXECUTORS else None
    builds = settings.builds_dir or (BUILDS if docker else None)
    return RunnerFacts(
        name=settings.name,
        short_token=runner.short_token,
        runner_id=settings.id,
        system_id=system_id,
        version=__version__,
        server_url=settings.url,
        executable_arch=f"{platform_name()}/{architecture_name()}",
        manager_host=socket.gethostname(),
        executor=settings.executor,
        shell=settings.shell,
        user=settings.user,
        login=settings.executor == "shell",
        builds_dir=builds,
        cache_dir=settings.cache_dir or (CACHE if docker else None),
        cache=CacheFacts(
            path=settings.cache.path or "",
            shared=settings.cache.shared,
            max_bytes=max(0, settings.cache.max_uploaded_archive_size),
        ),
        clone_url=settings.clone_url,
        environment=settings.environment,
        feature_flags=settings.feature_flags,
        pre_get_sources_script=settings.pre_get_sources_script or "",
        post_get_sources_script=settings.post_get_sources_script or "",
        pre_build_script=settings.pre_build_script or "",
        post_build_script=settings.post_build_script or "",
        custom_build_dir=bool(settings.custom_build_dir.enabled),
        output_limit_kib=settings.output_limit,
        debug_trace_disabled=settings.debug_trace_disabled,
        clean_git_config=settings.clean_git_config,
        safe_directory_checkout=settings.safe_directory_checkout is not False,
        get_sources_timeout_s=_seconds(settings.get_sources_timeout),
        prepare_timeout_s=_seconds(settings.prepare_timeout),
        artifact_upload_timeout_s=settings.artifact.upload_timeout.total_seconds(),
        artifact_header_timeout_s=settings.artifact.response_header_timeout.total_seconds(),
        use_common_build_dir=_meets_nobody(docker, builds) if docker else settings.instance.use_common_build_dir,
        docker=docker,
        seccomp_profiles=_profiles(docker) if docker else {},
        registry_logins=registry_logins() if docker else (),
        tls_ca=beside.get("ca", ""),
        tls_cert=beside.get("cert", ""),
        tls_key=beside.get("key", ""),
    )


def _profiles(docker: DockerTable) -> dict[str, str]:
    """The seccomp profiles that lie on this host; what is no file is for the engine to understand."""
    found = {}
    for option in (*docker.security_opt, *docker.services_security_opt):
        path = pathlib.Path(option.removeprefix(SECCOMP))
        if option.startswith(SECCOMP) and path.is_absolute() and path.is_file():
            found[str(path)] = path.read_text(encoding="utf-8")
    return found


def _meets_nobody(docker: DockerTable, builds: str | None) -> bool:
    """Whether each slot has a volume of its own for builds, so that paths in it need not keep jobs apart."""
    return not covers_builds(docker.volumes, builds or BUILDS)


def _seconds(given: timedelta | None) -> float | None:
    return None if given is None else given.total_seconds()
