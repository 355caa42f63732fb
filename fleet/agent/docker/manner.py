"""The container manner: a job's user steps in a container of its image, everything else beside it.

The build container is made once and started anew for each stage, with the stage's script on standard input; what it
leaves outside of its volumes stays for the next stage. Helper stages run confined on this machine (`confine.py`) or in
a root container on the same volumes.

Rule: the exit code is the container's, never the program's that talks to the engine: an engine that is restarted in the
middle of a stage fails the job as ours, not as the script's.
"""

from __future__ import annotations

import os
import signal
import time

from .. import jobfiles, stages, system
from ..children import Child, Launcher, exit_code
from ..errors import Refused
from ..home import discard, read_json, write_json
from ..identity import Identity
from ..leases import Lease
from ..manners import ShellManner, encoded
from ..running import Running
from ..stages import Ending
from ..terminal_desk import TERMINAL
from ..trace import Trace
from .confine import Confinement, Place, die_with_parent
from .engine import Engine, Failed
from .explaining import explain
from .preparing import HOST, RESULT, create_build, create_helper, prepare, with_profiles
from .quoting import files_script, quote
from .services import relay_log
from .sweeping import remove_known, sweep
from .watching import Watch

SECTION = "prepare_executor"
SHELL_IN_CONTAINER = """cd "$CI_PROJECT_DIR" 2>/dev/null
command -v bash >/dev/null 2>&1 && exec bash -i
exec sh -i"""
ATTEMPTS, PAUSE_S = 3, 3.0
LOOK_S = 0.5
SIGNALED = 128  # exit codes from here on are of a shell that a signal has ended
STOPPING_S = 3.0
SOON_S = 0.05
BETWEEN_S = 1.0
SWEEP_S = 20.0  # then `clean` goes on with it
BEING_REMOVED_S = 1.0
BUILD = "build"
OURS = "runner_system_failure"
HELPER_HOME = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": system.STANDARD_PATH}


class ContainerChild:
    """The program that is attached to a container; signals go to what runs in the container."""

    def __init__(self, child: Child, engine: Engine, container: str, *, native_stop: bool) -> None:
        self._child = child
        self._engine = engine
        self._container = container
        self._native_stop = native_stop

    @property
    def pid(self) -> int:
        """The process to wait for."""
        return self._child.pid

    def complaint(self) -> str:
        """See Child."""
        return self._child.complaint()

    def signal(self, number: int) -> None:
        """Signal every process in the container."""
        if number == signal.SIGKILL:
            self._spawn("kill", self._container)
        elif self._native_stop:
            self._spawn("stop", self._container)
        else:
            # not through the attached program: newer ones end by the signal, and what the job still says is lost
            self._spawn("exec", "--user", "0:0", self._container, "sh", "-c", "kill -TERM -1; kill -TERM 1")

    def _spawn(self, *words: str) -> None:
        """Start the program beside; the supervisor takes note of its end as of any other's."""
        null = os.open(os.devnull, os.O_RDWR)
        moves = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
        try:
            command = self._engine.command(*words)
            os.posix_spawn(command[0], command, self._engine.environment(), file_actions=moves, setpgroup=0)
        except OSError:
            system.send_group(self._child.pid, signal.SIGKILL)
        finally:
            os.close(null)


class ContainerManner(ShellManner):
    """Stages are containers, and helpers beside them."""

    def __init__(  # noqa: PLR0917  they are the parts of a supervisor
        self, job: dict, lease: Lease, identity: Identity, launcher: Launcher, running: Running, trace: Trace
    ) -> None:
        super().__init__(job, lease, identity, launcher, running)
        section = job["containers"]
        self._section = section
        self._trace = trace
        self._engine = Engine(section.get("program") or "docker", section.get("host"), lease.name)
        self._result = os.path.join(lease.folder, RESULT)
        self._umask = 0o022 if section.get("chown") else 0
        self._repeats_left = max(0, int(section.get("attempts") or 1) - 1)
        self._made = {}
        self._confinement = None
        self._watch = None
        self._trees = _loaded_trees(job)

    def prepare(self) -> Ending:
        """Make the containers, then the job's folders and files in their volumes."""
        stage = {"kind": stages.PREPARE, "name": SECTION, "timeout_s": self._section.get("prepare_timeout_s")}
        ending = self._prepare_in_time(stage)
        if ending.is_good:
            self._made = read_json(self._result)
            if self._made["helper"] == HOST:
                places = [Place(path, source) for path, source in self._made["places"]]
                self._confinement = Confinement(self._lease.folder, places)
            self._watch = Watch(self._engine)
            self._follow_services()
            ending = self._make_files(stage)
        self._trace.close_section(SECTION)
        return ending

    def _prepare_in_time(self, stage: dict) -> Ending:
        for attempt in range(1, ATTEMPTS + 1):
            discard(self._result)
            child = self._launcher.program(self._prepare_in_child)
            ending = self._told(self._running.wait_for(child, stage))
            if ending.how != stages.BROKEN or ending.reason != OURS or attempt == ATTEMPTS:
                return ending
            self._trace.warn("Preparation failed: %s. It is tried again in %d s" % (ending.message, PAUSE_S))
            cut = self._running.pause(PAUSE_S, stage)
            if cut is not None:
                return cut
            self._in_child(lambda: sweep(self._engine, BETWEEN_S), stage)
        return ending

    def _prepare_in_child(self) -> int:
        return prepare(self._section, self._engine, self._lease.folder, lambda result: write_json(self._result, result))

    def _told(self, ending: Ending) -> Ending:
        """The ending of the preparation in the words that the child left."""
        told = read_json(self._result)
        if ending.how == stages.EXITED and ending.code and told.get("reason"):
            return Ending(stages.BROKEN, 0, told["message"], told["reason"])
        if ending.how == stages.EXITED and ending.code:
            return Ending(stages.BROKEN, 0, "the preparation of the containers was ended", OURS)
        return ending

    def _make_files(self, stage: dict) -> Ending:
        directories, files = self._job.get("directories") or [], self._job.get("files") or []
        folder, stale = self._job["cwd"], self._job.get("cleanup_paths") or []
        roots = [place["path"] for place in self._section["places"]]

        def make() -> None:
            jobfiles.remove_all(stale)
            for root in roots:
                os.chmod(root, 0o777)  # noqa: S103  the image's user, whoever that is, writes here
            jobfiles.prepare(folder, directories, files)

        if self._confinement is not None:
            return self._in_child(lambda: (self._confinement.enter(self._umask), make()), stage)
        script = files_script(roots, stale, folder, directories, files)
        return self.judge({**stage, "where": "helper"}, self._running.wait_for(self._attach(HELPER, script), stage))

    def _in_child(self, run, stage: dict) -> Ending:
        return self._running.wait_for(self._launcher.function(run), stage)

    def _follow_services(self) -> None:
        """Services' logs in the job's log, when it asks for them."""
        if not self._section.get("service_logs"):
            return
        for container, alias in self._made["services"]:

            def relay(container: str = container, alias: str = alias) -> None:
                die_with_parent()
                relay_log(self._engine, container, alias)

            self._launcher.function(relay)

    def start(self, stage: dict, script: str, environment: dict, extra: tuple) -> Child:
        """Start a script of a stage in the job's container, or where helper stages run."""
        if stage.get("where") == BUILD or self._confinement is None:
            told = "export CI_JOB_STATUS=%s\n" % quote(environment.get("CI_JOB_STATUS", "running"))
            return self._attach(BUILD if stage.get("where") == BUILD else HELPER, told + script)
        own = {**HELPER_HOME, **(self._job.get("environment") or {}), **environment}
        number = system.nameless_file(encoded(script), self._lease.folder)
        try:
            return self._launcher.shell(
                ["sh"], number, own, self._job["cwd"], extra, enter=lambda: self._confinement.enter(self._umask)
            )
        finally:
            os.close(number)

    def _attach(self, which: str, script: str) -> ContainerChild:
        container = self._container(which)
        if self._watch is not None:
            self._watch.was_killed()  # before this stage
        number = system.nameless_file(encoded(script), self._lease.folder)
        try:
            command = self._engine.command("start", "--attach", "--interactive", container)
            child = self._launcher.shell(command, number, self._engine.environment(), "/")
        finally:
            os.close(number)
        native = bool(self._section.get("native_stop"))
        return ContainerChild(child, self._engine, container, native_stop=native)

    def _container(self, which: str) -> str:
        return self._section["image" if which == BUILD else "helper"]["container"]

    def enter(self, stage: dict):
        """In a forked child: confined among the job's volumes, as root; or the files through a helper container."""
        if self._confinement is None:
            folder = os.path.join(self._lease.folder, "copy-%d" % os.getpid())
            return self._trees.tree_for(self._engine, self._container(HELPER), stage["transfer"], folder)
        self._confinement.enter(self._umask)
        return None

    def judge(self, stage: dict, ending: Ending) -> Ending:
        """What the container says of its end, which may be more than its exit code."""
        is_build = stage.get("where") == BUILD
        if ending.is_good:
            return self._handed_over(stage) if self._section.get("chown") and not is_build else ending
        if not is_build and self._confinement is not None:
            return ending
        which = BUILD if is_build else HELPER
        try:
            known = self._look_at(self._container(which), ending)
        except Failed as exc:
            message = "the container engine was stopped or restarted while the job ran: %s" % exc.message
            return Ending(stages.BROKEN, 0, message, OURS) if ending.how == stages.EXITED else ending
        if ending.how != stages.EXITED:
            if known is not None and known["State"].get("Running"):
                self._engine.ask("kill", self._container(which))
            return ending
        return explain(ending, known, self._section, self._from_outside())

    def _from_outside(self) -> str:
        """What ended the container, when it was not the script."""
        if self._watch is None:
            return ""
        was_killed = self._watch.was_killed()
        if self._watch.is_engine_gone:
            return "the container engine was stopped or restarted while the job ran"
        return "the job's container was stopped from outside, by a person or with its engine" if was_killed else ""

    def _look_at(self, container: str, ending: Ending) -> dict | None:
        """What the engine knows of a container; one that was killed is given a moment, for it may be being removed."""
        give_up_at = time.monotonic() + BEING_REMOVED_S
        while True:
            known = self._engine.standing(container)
            state = (known or {}).get("State") or {}
            is_doubtful = ending.how == stages.EXITED and state.get("ExitCode") == 137 and not state.get("OOMKilled")
            if not is_doubtful or time.monotonic() > give_up_at:
                return known
            time.sleep(0.1)

    def _handed_over(self, stage: dict) -> Ending:
        """Give what helper stages made to the user of the image (FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR)."""
        if self._confinement is None or stage["kind"] == stages.CLEANUP:
            return Ending(stages.EXITED)
        if "owner" not in self._made:
            words = ("run", "--rm", "--pull", "never", "--label", self._engine.label, *self._user_words())
            answer = self._engine.ask(*words, "--entrypoint", "sh", self._made["image"], "-c", "id -u; id -g")
            numbers = answer.output.split()
            if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
                message = "the user of the job's image cannot be told: %s" % (answer.complaint() or answer.output)
                return Ending(stages.BROKEN, 0, message, OURS)
            self._made["owner"] = [int(number) for number in numbers]
        uid, gid = self._made["owner"]
        paths = self._section["owned"]
        return self._in_child(lambda: (self._confinement.enter(0o022), jobfiles.give_all(paths, uid, gid)), stage)

    def _user_words(self) -> list:
        user = self._section["image"].get("user")
        return ["--user", user] if user else []

    def repeats(self, stage: dict, ending: Ending) -> bool:
        """Make the container again that has vanished, as often as EXECUTOR_JOB_SECTION_ATTEMPTS says."""
        if not ending.is_vanished or not self._repeats_left:
            return False
        self._repeats_left -= 1
        self._trace.warn("%s: %s. It is made anew, and the stage begins again" % (stage["name"], ending.message))
        try:
            if stage.get("where") == BUILD:
                create_build(self._engine, with_profiles(self._section, self._lease.folder), self._made["image"])
            else:
                create_helper(self._engine, self._section, self._made["helper_image"])
        except Failed:
            return False
        return True

    def open_shell(self, slave: int, environment: dict) -> Child:
        """A shell in the job's container, while one of its stages runs there."""
        container = self._container(BUILD)
        try:
            known = self._engine.inspect("container", container)
        except Failed as exc:
            raise Refused("failed", exc.message) from exc
        if known is None or not known["State"].get("Running"):
            raise Refused("not_yet", "the job's container does not run just now")
        told = ["%s=%s" % (key, environment[key]) for key in ("TERM", "CI_JOB_STATUS", TERMINAL)]
        words = [word for each in told for word in ("--env", each)]
        command = self._engine.command("exec", "-it", *words, container, "sh", "-c", SHELL_IN_CONTAINER)
        return self._launcher.function(lambda: self._stay(container, command), terminal=slave)

    def _stay(self, container: str, command: list) -> None:
        """In a child on the terminal: a shell in the container, and another when a later stage has started it again."""
        while True:
            began_at = self._started_at(container)
            pid = os.posix_spawn(command[0], command, self._engine.environment())
            code = exit_code(os.waitpid(pid, 0)[1])
            if self._still_runs(container, began_at, within_s=STOPPING_S if code >= SIGNALED else 0.0):
                os._exit(code)
            os.write(1, b"\r\nThe step is over. A new shell follows when the container runs again; Ctrl-C leaves.\r\n")
            while self._started_at(container) is None:
                time.sleep(LOOK_S)

    def _still_runs(self, container: str, began_at: str | None, within_s: float) -> bool:
        """Whether the container has not been stopped since, be it that it was started again.

        A shell that its end has killed may be heard of before the engine says that it has ended.
        """
        until = time.monotonic() + within_s
        while began_at is not None and self._started_at(container) == began_at:
            if time.monotonic() >= until:
                return True
            time.sleep(SOON_S)
        return False

    def _started_at(self, container: str) -> str | None:
        """When the container that runs now was started; None while it does not run."""
        try:
            known = self._engine.inspect("container", container)
        except Failed:
            return None
        return known["State"]["StartedAt"] if known is not None and known["State"].get("Running") else None

    def keep(self, seconds: float) -> None:
        """The scripts are over, and a terminal is open: its container is to run for so long."""
        self._attach(BUILD, "exec sleep %d\n" % seconds)

    def end_shell(self, name: str) -> None:
        """What was started in the container does not end with the program that is attached to it."""
        for pid in system.processes_with(TERMINAL, name):
            system.send(pid, signal.SIGKILL)

    def remove(self, paths: list) -> Child:
        """Start to remove files of the job from its volumes."""
        if self._confinement is not None:
            return self._launcher.function(lambda: (self._confinement.enter(), jobfiles.remove_all(paths)))
        if not self._made:
            return self._launcher.function(lambda: None)
        return self._attach(HELPER, "rm -rf -- %s\n" % " ".join(quote(path) for path in paths))

    def finish(self) -> bool:
        """Remove the job's containers, its network and temporary volumes."""
        if self._watch is not None:
            self._watch.close()

        def run() -> int:
            is_done = bool(self._made) and remove_known(
                self._engine, self._section, has_helper=self._confinement is None
            )
            problem = "" if is_done else sweep(self._engine, SWEEP_S if self._made else BETWEEN_S)
            if problem:
                os.write(1, ("WARNING: the job's containers were not all removed: %s\n" % problem).encode())
            return 1 if problem else 0

        stage = {"kind": stages.CLEANUP, "name": "cleanup", "timeout_s": 3 * SWEEP_S}
        return self._running.wait_for(self._launcher.program(run), stage).is_good


HELPER = "helper"


def _loaded_trees(job: dict):
    """The code for transfers through a helper container, if the job has transfers."""
    if not any(stage.get("transfer") for stage in job["stages"]):
        return None
    from . import tree  # noqa: PLC0415  jobs without transfers start sooner without it

    return tree
