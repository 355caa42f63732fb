"""Containers: images and how they come, users, volumes, rights and limits."""

from __future__ import annotations

import time
from typing import Any

from tests.acceptance.pipelines.case import DOCKER, Case, Job, failed
from tests.acceptance.pipelines.case import case as any_case

CONFIGURATION: dict[str, Any] = {"state": "failed", "reason": "runner_configuration_error", "lacks": ["\n$ "]}
LABEL = "com.gitlab.gitlab-runner"
ONE = {"README": "one\n"}
OPTIONS = {"executor_opts": {"docker": {"user": "1234", "platform": "linux/amd64"}}}
CGROUP = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true"
BIND = 'ls -ld "$CI_PROJECT_DIR" && echo "in $CI_PROJECT_DIR"'
CI_JOB = "com.gitlab.gitlab-runner.job.id"


def case(name: str, title: str, *jobs: Job, **more: Any) -> Case:
    return any_case(name, "1.13", title, *jobs, **{"on": (DOCKER,)} | more)


def image(name: str, **more: Any) -> dict[str, Any]:
    return {"image": {"name": f"@image/{name}@", **more}}


def pushed(**more: Any) -> dict[str, Any]:
    """An image that only the registry has."""
    return {"image": {"name": "@pushed/busy@", **more}}


def labels_are_there(world: Any, job: int) -> list[str]:
    """The labels of GitLab Runner are on the build container while it runs."""
    until = time.monotonic() + 60
    wanted = {f"{LABEL}.job.id": str(job), f"{LABEL}.managed": "true", f"{LABEL}.type": "build"}
    while time.monotonic() < until:
        names = world.engine.found(f"{LABEL}.job.id={job}", f"{LABEL}.type=build")["containers"]
        if names:
            told = world.engine.docker("inspect", "--format", "{{json .Config.Labels}}", names[0])
            return [f"label {key}" for key, value in wanted.items() if f'"{key}":"{value}"' not in told]
        time.sleep(0.1)
    return ["no container with the labels"]


def remove_container(world: Any, job: int) -> list[str]:
    world.gitlab.wait_for_trace(job, "O begun", timeout=120)
    names = world.engine.found(f"{LABEL}.job.id={job}", f"{LABEL}.type=build")["containers"]
    world.engine.docker("rm", "--force", *names)
    return [] if names else ["no container to remove"]


def is_gone(world: Any, view: Any, trace: bytes) -> list[str]:
    """Nothing of the job is left on the engine but volumes that are kept."""
    found = world.engine.found(f"{LABEL}.job.id={view.id}")
    return [f"left: {found}"] if found["containers"] or found["networks"] else []


def own_label(world: Any, job: int) -> list[str]:
    """The runner's own labels, with the job's variables in them."""
    world.gitlab.wait_for_trace(job, "O begun", timeout=120)
    return [] if world.engine.found(f"team=of-{job}")["containers"] else ["no container with the label"]


def chown_is_dropped(world: Any, view: Any, trace: bytes) -> list[str]:
    """CAP_CHOWN is bit 0, CAP_NET_ADMIN bit 12."""
    bits = int(trace.decode().partition("CapBnd:")[2].split()[0], 16)
    return [] if not bits & 1 and bits & 1 << 12 else [f"capabilities are {bits:x}"]


CASES: tuple[Case, ...] = (
    case("image-default", "a job without an image runs in the runner's", Job(
        script=["cat /etc/passwd | head -2 | tail -1"], lines=["app:x:1234:1234:app:/home/app:/bin/sh"], also=is_gone)),
    case("image-own", "a job runs in its own image", Job(
        script=["busybox | grep BusyBox"], more=image("busy"), has=["BusyBox v"], also=is_gone)),
    case("image-named", "the log says which image is used", Job(more=image("busy"), has=["fleet-test/busy:1"])),
    case("image-expanded", "variables in the image's name are filled in", Job(
        script=["busybox | grep BusyBox"], more={"image": "$WHOSE/busy:1"}, variables={"WHOSE": "fleet-test"},
        has=["BusyBox v"])),
    case("image-entrypoint", "the image's entry point is honoured", Job(
        script=['echo "it says $FROM_ENTRYPOINT"'], more=image("entry"), has=["entrypoint of uid 0"],
        lines=["it says yes"])),
    case("image-entrypoint-own", "the job may set another one, or none", Job(
        script=['echo "it says ${FROM_ENTRYPOINT:-nothing}"'], more=image("entry", entrypoint=[""]),
        lines=["it says nothing"], lacks=["entrypoint of uid"])),
    case("image-entrypoint-kept", "unless disable_entrypoint_overwrite is set", Job(
        script=['echo "it says $FROM_ENTRYPOINT"'], more=image("entry", entrypoint=[""]), lines=["it says yes"]),
        runner="strict"),
    case("image-environment", "variables and directories of the image are there", Job(
        script=['echo "$FROM_IMAGE"', BIND], more=image("asks"), lines=["of-the-image"], has=["in /builds/"])),
    case("image-nonroot", "an image's own user runs the script, in a directory that is its to write", *(Job(
        files=ONE, script=["id -u", "cat README", f"echo x >made-{number}", "umask"], more=image("nonroot"),
        lines=["1234", "one"]) for number in range(2))),
    case("image-nonroot-git", "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR makes files its own: git trusts them", Job(
        files=ONE, variables={"FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR": "true"},
        script=["id -u", "git status --short", "git log --oneline | wc -l"], more=image("fullnonroot"),
        lines=["1234", "1"])),
    case("image-user", "`docker: user` of the job runs the script", Job(
        script=["id -u"], more=image("busy", **OPTIONS), lines=["1234"])),
    case("image-user-of-runner", "the runner's `user` wins", Job(
        script=["id -u"], more=image("busy", executor_opts={"docker": {"user": "0"}}), lines=["1234"]),
        runner="tight"),
    case("image-user-refused", "a user that is not in allowed_users is refused", Job(
        **CONFIGURATION, more=image("busy", executor_opts={"docker": {"user": "4321"}})), runner="strict"),
    case("image-root-files", "files of root are no trouble for the next job, whoever runs it", Job(
        files=ONE, script=["echo secret >private; chmod 0600 private; mkdir -p d/e; chmod 0700 d; touch d/e/f"],
        more=image("busy")), Job(
        files={"README": "two\n"}, script=["ls -A", "cat README"], more=image("nonroot"), lines=["two"],
        lacks=["\nprivate\n", "\nd\n"])),
    case("image-no-shell", "an image without any shell fails the job and says so", Job(
        more=image("noshell"), state="failed", reason="runner_configuration_error", has=["shell"])),
    case("image-platform", "another platform that is not there is refused by the engine", Job(
        state="failed", reason="runner_configuration_error",
        more=pushed(executor_opts={"docker": {"platform": "linux/s390x"}}) | {"credentials": "@credentials@"})),
    case("image-missing", "an image that does not exist is the job's fault", Job(
        **CONFIGURATION, more={"image": "@registry@/no/such:1", "credentials": "@credentials@"}, has=["no/such"])),
    case("image-login", "the payload's credentials open the registry", Job(
        script=["busybox | grep BusyBox"], more=pushed() | {"credentials": "@credentials@"}, has=["BusyBox v"])),
    case("image-login-variable", "so does DOCKER_AUTH_CONFIG, which comes first", Job(
        script=["busybox | grep BusyBox"], variables={"DOCKER_AUTH_CONFIG": "@auth-config@"},
        more=pushed() | {"credentials": "@wrong-credentials@"}, has=["BusyBox v"])),
    case("image-login-none", "without a login the job fails as misconfigured", Job(
        **CONFIGURATION, more=pushed())),
    case("image-login-wrong", "so does a wrong one, and no password is in the log", Job(
        **CONFIGURATION, more=pushed() | {"credentials": "@wrong-credentials@"})),
    case("image-busy-registry", "a registry that answers 429 is asked three times, then it is a pull failure", Job(
        more={"image": "@front@/group/busy:1"}, state="failed", reason="image_pull_failure", has=["toomanyrequests"])),
    case("image-no-host", "a registry that cannot be reached is a failure of something outside", Job(
        more={"image": "nowhere.invalid/busy:1"}, state="failed", reason="runner_external_dependency_failure")),
    case("image-never", "pull_policy never takes what is there, and pulls nothing", Job(
        more=image("busy", pull_policy=["never"]), lines=["hello"]), Job(
        more=pushed(pull_policy=["never"]) | {"credentials": "@credentials@"}, state="failed",
        reason="runner_configuration_error"), runner="strict"),
    case("image-policy-refused", "a policy that is not allowed is refused", Job(
        **CONFIGURATION, more=image("busy", pull_policy=["always"])), runner="strict"),
    case("image-always", "pull_policy always asks the registry each time", *(Job(
        script=["busybox | grep BusyBox"], has=["BusyBox v"],
        more=pushed(pull_policy=["always"]) | {"credentials": "@credentials@"}) for _ in range(2)), runner="pulls"),
    case("image-policies", "several policies are tried in order", Job(
        more=image("busy"), lines=["hello"]), runner="pulls"),
    case("image-allowed", "images outside of allowed_images are refused", Job(
        **CONFIGURATION, more=image("asks")), runner="strict"),
    case("image-allowed-default", "the runner's own image is always allowed", Job(lines=["hello"]), runner="strict"),
    case("container-script", "all commands of the script share a container, after_script has the same image", Job(
        script=["touch /left"], after=["test -e /left && echo 'the same file system'"],
        lines=["the same file system"])),
    case("container-labels", "containers carry GitLab Runner's labels", Job(
        script=["sleep 3"], during=labels_are_there)),
    case("container-own-labels", "and those of the runner, filled in", Job(
        script=["echo begun", "sleep 3"], during=own_label), runner="tight"),
    case("container-cache-volume", "/cache is kept for the project's next job", Job(
        script=["echo kept >/cache/file"]), Job(script=["cat /cache/file"], lines=["kept"])),
    case("container-cache-protected", "a protected ref has a cache volume of its own", Job(
        script=["echo kept >/cache/file"]), Job(
        files=ONE, script=["test -e /cache/file && echo seen || echo hidden"], lines=["hidden"], edit=lambda payload:
        payload["git_info"].update(protected=True))),
    case("container-builds-volume", "the builds directory is kept for `fetch`", Job(
        files=ONE, has=["Created fresh repository"]), Job(files=ONE, lacks=["Created fresh repository"])),
    case("container-no-cache", "disable_cache keeps nothing", Job(
        script=["mkdir -p /cache; echo kept >/cache/file"]), Job(
        script=["test -e /cache/file && echo kept || echo gone"], lines=["gone"]), runner="privileged"),
    case("container-volumes", "directories of the machine may be mounted", Job(
        script=["cat /host/file", "touch /host/x || echo read-only"], lines=["of the machine", "read-only"]),
        runner="tight"),
    case("container-memory", "memory is limited, and a script that wants more is killed", Job(
        script=[CGROUP], lines=["67108864"]), failed(
        137, script=["tail /dev/zero"]), runner="tight"),
    case("container-limits", "ulimit, hostname, extra hosts, tmpfs and shared memory are as the runner says", Job(
        script=["ulimit -n", "hostname", "grep elsewhere /etc/hosts", "mount | grep ' /scratch '",
                "df -k /dev/shm | tail -1"],
        lines=["512", "tight-host"], has=["10.9.8.7", "/scratch type tmpfs", "16384"]), runner="tight"),
    case("container-dns", "dns and dns_search are as the runner says", Job(
        script=["cat /etc/resolv.conf"], has=["search corp.example"]), runner="tight"),
    case("container-capabilities", "capabilities are added and dropped", Job(
        script=["grep CapBnd /proc/self/status"], also=chown_is_dropped),
        runner="tight"),
    case("container-sysctls", "kernel settings are as the runner says", Job(
        script=["cat /proc/sys/net/ipv4/ip_unprivileged_port_start"], lines=["77"]), runner="tight"),
    case("container-unprivileged", "a container has no rights over the machine", Job(
        script=["mkdir -p /mnt; mount -t tmpfs none /mnt && echo may || echo no"],
        lines=["no"])),
    case("container-privileged", "unless the runner is privileged", Job(
        script=["mkdir -p /mnt && mount -t tmpfs none /mnt && echo may"], lines=["may"]), runner="privileged"),
    case("container-privileged-images", "and the image is one of allowed_privileged_images", Job(
        script=["mkdir -p /mnt; mount -t tmpfs none /mnt && echo may || echo no"], more=image("busy"), lines=["no"]),
        runner="privileged"),
    case("container-network-none", "network_mode is taken as it is", Job(
        script=["cat /proc/net/dev | grep -c :"], lines=["1"]), runner="alone"),
    case("container-removed", "a container that vanishes fails the job as a failure of the system", Job(
        script=["echo begun", "sleep 300"], during=remove_container, state="failed", reason="runner_system_failure")),
    case("container-attempts", "EXECUTOR_JOB_SECTION_ATTEMPTS runs the section again", Job(
        script=["echo begun", "test -e /cache/once || { touch /cache/once; sleep 300; }", "echo done"],
        variables={"EXECUTOR_JOB_SECTION_ATTEMPTS": "2"}, during=remove_container, lines=["begun", "done"])),
    case("container-deletes-itself", "a job may delete its own build directory", Job(
        files=ONE, script=['cd / && rm -rf "$CI_PROJECT_DIR"', "echo deleted"], lines=["deleted"]), Job(
        files=ONE, script=["cat README"], lines=["one"])),
)  # fmt: skip
