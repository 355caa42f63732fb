"""Makes everything that a job's containers need, in a child of the supervisor: what it prints is in the job's log.

Rule: the order is GitLab Runner's: network, volumes, services, wait for them, build container. What was made is told
to the supervisor in `containers.json` in the lease's folder, and so is what went wrong.
"""

from __future__ import annotations

import os
import subprocess

from .. import system
from ..home import write
from . import socket
from .confine import Confinement, Place, die_with_parent
from .engine import Engine, Failed, forget_credentials
from .pulling import Puller
from .services import Service, Waiting, ports_of

RESULT = "containers.json"
CREDENTIALS = "registry"
HOST, CONTAINER = "host", "container"
HELPER_PROGRAM = "umask %s; exec sh"
PROBE_S = 5.0


class Preparation:
    """The containers of one job."""

    def __init__(self, section: dict, engine: Engine, folder: str, say) -> None:
        self._section = with_profiles(section, folder)
        self._engine = engine
        self._folder = folder
        self._say = say
        self._puller = Puller(engine, say, os.path.join(folder, CREDENTIALS))
        self.made = {"services": []}

    def run(self) -> dict:
        """All of it; raises Failed."""
        section = self._section
        facts = self._engine.facts()
        if facts["os"] not in {"linux", "freebsd", ""}:
            raise Failed("runner_system_failure", "the container engine runs %s containers, not linux" % facts["os"])
        self._say("Using Docker executor with image %s ..." % section["image"]["image"])
        self._make_network()
        self._make_volumes()
        self._choose_helper(facts)
        services = [self._start_service(spec) for spec in section.get("services") or []]
        if services and section.get("wait_for_services_s", 30) >= 0:
            Waiting(self._engine, services, self._say, self._probe(facts)).run(section.get("wait_for_services_s", 30))
        image = self._puller.bring(section["image"])
        self.made["image"] = image["Id"]
        self.made["build"] = create_build(self._engine, section, image["Id"])
        return self.made

    def _make_network(self) -> None:
        network = self._section.get("network")
        if network is None:
            return
        words = ["network", "create", *self._labels(temporary=True), *(network.get("options") or []), network["name"]]
        self._engine.must(*words, what="network %s cannot be created" % network["name"])

    def _make_volumes(self) -> None:
        for volume in self._section.get("volumes") or []:
            words = ["volume", "create", *self._labels(temporary=not volume.get("keep"), more=volume.get("labels"))]
            if volume.get("driver"):
                words += ["--driver", volume["driver"]]
            for name, value in (volume.get("driver_options") or {}).items():
                words += ["--opt", "%s=%s" % (name, value)]
            if self._made_by_socket(volume):
                continue
            answer = self._engine.ask(*words, volume["name"])
            if not answer.is_good and "already exists" not in answer.errors:  # Podman minds, Docker does not
                message = "volume %s cannot be created: %s" % (volume["name"], answer.complaint())
                raise Failed("runner_system_failure", message)

    def _made_by_socket(self, volume: dict) -> bool:
        if self._engine.socket is None:
            return False
        words = self._labels(temporary=not volume.get("keep"), more=volume.get("labels"))
        wanted = {
            "Name": volume["name"],
            "Driver": volume.get("driver") or "local",
            "DriverOpts": volume.get("driver_options") or {},
            "Labels": dict(word.split("=", 1) for word in words if word != "--label"),
        }
        return socket.is_good(socket.call(self._engine.socket, "POST", "/volumes/create", wanted))

    def _labels(self, *, temporary: bool, more: dict | None = None) -> list:
        return labels_of(self._engine if temporary else None, {**(self._section.get("labels") or {}), **(more or {})})

    def _choose_helper(self, facts: dict) -> None:
        """Helper stages on this machine where they can be confined and see the volumes, else in a container."""
        places = self._places(facts)
        if places is not None and can_confine(self._folder, places):
            self.made["helper"] = HOST
            self.made["places"] = [[place.path, place.source] for place in places]
            return
        helper = self._section["helper"]
        image = self._puller.bring(helper)
        self.made["helper"] = CONTAINER
        self.made["helper_image"] = image["Id"]
        passing = {volume["name"] for volume in self._section.get("volumes") or [] if not volume.get("keep")}
        mounts = [mount for mount in self._section.get("mounts") or [] if mount.partition(":")[0] not in passing]
        self.made["lasting"] = mounts
        create_helper(self._engine, self._section, image["Id"])

    def _places(self, facts: dict) -> list | None:
        """Where the volumes' files are on this machine; None when that cannot be told."""
        if os.geteuid() != 0 or not facts["is_rootful"] or self._section["helper"].get("always"):
            return None
        drivers = {volume["name"]: volume.get("driver") for volume in self._section.get("volumes") or []}
        found = []
        for place in self._section["places"]:
            source = place.get("host_path")
            if source is None and place.get("volume"):
                known = self._engine.inspect("volume", place["volume"]) or {}
                is_plain = known.get("Driver") == "local" and not known.get("Options")
                source = known.get("Mountpoint") if is_plain and not drivers.get(place["volume"]) else None
                if not source or not os.path.isdir(source):
                    return None
            elif source is None:
                source = os.path.join(self._folder, "place%d" % len(found))
            os.makedirs(source, mode=0o755, exist_ok=True)
            found.append(Place(place["path"], source))
        return found

    def _start_service(self, spec: dict) -> Service:
        self._say("Starting service %s ..." % spec["image"])
        image = self._puller.bring(spec)
        section = self._section
        words = ["--name", spec["container"], *labels_of(self._engine, {**section["labels"], **spec.get("labels", {})})]
        words += [*(spec.get("options") or []), *image_words(spec, image["Id"])]
        create(self._engine, spec["container"], words, spec.get("environment") or {}, "service %s" % spec["image"])
        answer = self._engine.ask("start", spec["container"])
        if not answer.is_good:
            if answer.is_unreachable:
                raise Failed("runner_system_failure", "service %s: %s" % (spec["image"], answer.complaint()))
            self._say("\x1b[0;33mWARNING: service %s did not start: %s\x1b[0;m" % (spec["image"], answer.complaint()))
        service = Service(spec, spec["container"], ports_of(spec, image))
        self.made["services"].append([service.container, service.alias])
        return service

    def _probe(self, facts: dict):
        """How to ask whether a service answers: from here, unless its network is out of reach."""
        address = self._engine.host or os.environ.get("DOCKER_HOST") or "unix://"
        if facts["is_rootful"] and address.startswith("unix://"):
            return None
        return self._probe_in_container

    def _probe_in_container(self, service: Service, port: int) -> bool:
        helper = self._section["helper"]
        image = self._puller.bring(helper)["Id"] if "helper_image" not in self.made else self.made["helper_image"]
        self.made["helper_image"] = image
        words = ["run", "--rm", "--pull", "never", *labels_of(self._engine, {}), "--network"]
        words += ["container:" + service.container, "--entrypoint", "sh", image, "-c"]
        return self._engine.ask(*words, "nc -z -w 2 127.0.0.1 %d" % port, within_s=PROBE_S + 10).is_good


def with_profiles(section: dict, folder: str) -> dict:
    """The section with the places of the profile files that its options name; the files are made."""
    names = {}
    for number, text in enumerate(section.get("profiles") or []):
        path = os.path.join(folder, "profile-%d.json" % number)
        write(path, text.encode())
        names["{profile:%d}" % number] = path

    def filled(spec: dict) -> dict:
        words = spec.get("options") or []
        for mark, path in names.items():
            words = [word.replace(mark, path) for word in words]
        return {**spec, "options": words}

    if not names:
        return section
    services = [filled(spec) for spec in section.get("services") or []]
    return {**section, "image": filled(section["image"]), "services": services}


def labels_of(engine: Engine | None, labels: dict) -> list:
    """Options for labels; with an engine also the one by which the job's end finds what was made."""
    words = [] if engine is None else ["--label", engine.label]
    for name, value in labels.items():
        words += ["--label", "%s=%s" % (name, value)]
    return words


def image_words(spec: dict, image: str) -> list:
    """The end of a `create`: entry point, image, command."""
    entrypoint, command = spec.get("entrypoint"), list(spec.get("command") or [])
    words = ["--pull", "never"]
    if spec.get("platform"):
        words += ["--platform", spec["platform"]]
    if entrypoint is not None:
        first = entrypoint[0] if entrypoint else ""
        words += ["--entrypoint", first]
        command = [*entrypoint[1:], *command]
    return [*words, image, *command]


def create(engine: Engine, name: str, words: list, variables: dict, what: str) -> None:
    """`create` a container; one of this name, left by a killed job, goes first."""
    for attempt in (1, 2):
        answer = engine.ask("create", *words, variables=variables)
        if answer.is_good:
            return
        if attempt == 1 and "already in use" in answer.errors:
            engine.ask("rm", "--force", "--volumes", name)
            continue
        break
    is_ours = answer.is_unreachable or answer.code == 124
    reason = "runner_system_failure" if is_ours else "runner_configuration_error"
    raise Failed(reason, "%s: its container cannot be created: %s" % (what, answer.complaint()))


def create_build(engine: Engine, section: dict, image: str) -> str:
    """The container of the user's steps; it is started anew for each of them."""
    spec = section["image"]
    words = ["--interactive", "--name", spec["container"]]
    words += labels_of(engine, {**section["labels"], **spec.get("labels", {})})
    words += mounts_of(section)
    words += [*(spec.get("options") or []), *image_words(spec, image)]
    create(engine, spec["container"], words, section.get("environment") or {}, "image %s" % spec["image"])
    return spec["container"]


def create_helper(engine: Engine, section: dict, image: str) -> str:
    """The root container of helper stages, where this machine cannot run them itself."""
    spec = section["helper"]
    words = ["--interactive", "--name", spec["container"], "--user", "0:0"]
    words += labels_of(engine, {**section["labels"], **spec.get("labels", {})})
    words += [*mounts_of(section), *(spec.get("options") or []), "--pull", "never", "--entrypoint", "sh", image]
    words += ["-c", HELPER_PROGRAM % ("0022" if section.get("chown") else "0000")]
    create(engine, spec["container"], words, {}, "helper image %s" % spec["image"])
    return spec["container"]


def mounts_of(section: dict) -> list:
    """Options for the volumes, the same in the build and the helper container."""
    return [word for mount in section.get("mounts") or [] for word in ("--volume", mount)]


def can_confine(folder: str, places: list) -> bool:
    """Whether a helper stage can run confined on this machine, git and all."""
    if system.find_program("git", system.STANDARD_PATH) is None:
        return False
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            Confinement(folder, places).enter()
            os.execve("/bin/sh", ["sh", "-c", "git --version"], {"PATH": system.STANDARD_PATH, "HOME": "/root"})
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def prepare(section: dict, engine: Engine, folder: str, save) -> int:
    """In a child: make everything; `save` gets what was made or what went wrong; the exit code."""
    die_with_parent()

    def say(text: str) -> None:
        os.write(1, text.encode("utf-8", "replace") + b"\n")

    preparation = Preparation(section, engine, folder, say)
    try:
        save(preparation.run())
    except Failed as exc:
        save({"reason": exc.reason, "message": exc.message})
        return 1
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as exc:
        save({"reason": "runner_system_failure", "message": "the job's containers cannot be made: %s" % exc})
        return 1
    finally:
        forget_credentials(os.path.join(folder, CREDENTIALS))
    return 0
