"""What the cases of the conformance pipeline run in: a pretend GitLab, one `fleetctl up`, one machine of many slots.

The configuration has an entry for each wish that only a runner's settings can show; a case names the entry that takes
its jobs. One machine serves all, so that a later job of a case finds what an earlier one left.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import GitSource
from fleet.demo.state import Knobs
from fleet.settings.runner import short_token
from tests.acceptance.manager import Manager, wait_until
from tests.acceptance.pipelines.case import DOCKER, Case
from tests.docker.engine import Engine
from tests.docker.images import PREFIX, RECIPES, image
from tests.docker.registry import Front, Registry, running_front

SLOTS = 10
DEPENDENCY = re.compile(r"@dependency/(\d+)@")
IMAGE, PUSHED = re.compile("@image/([a-z]+)@"), re.compile("@pushed/([a-z]+)@")
HOOK = "echo {} of the runner"
ENTRIES: Mapping[str, str] = {
    "plain": "",
    "scripts": f"""
environment = ["FROM_RUNNER=of the runner", "BOTH=of the runner", "POINTS=to $FROM_RUNNER", "BAD_ENTRY=x"]
pre_get_sources_script = "{HOOK.format("pre-sources")}"
post_get_sources_script = "{HOOK.format("post-sources")}"
pre_build_script = "{HOOK.format("pre-build")}"
post_build_script = "{HOOK.format("post-build")}"
  [runners.feature_flags]
  FF_SCRIPT_SECTIONS = true
""",
    "limits": """
output_limit = 64
debug_trace_disabled = true
get_sources_timeout = "2s"
""",
    "paths": """
clone_url = "@url@/"
  [runners.custom_build_dir]
  enabled = true
""",
    "sh": 'shell = "sh"\n',
    "host": """
[runners.docker]
network_mode = "host"
""",
}
DOCKER_KEYS: Mapping[str, str] = {
    "strict": """
[runners.docker]
pull_policy = ["if-not-present", "never"]
allowed_images = ["fleet-test/busy:*", "fleet-test/entry:*", "@registry@/**"]
allowed_services = ["fleet-test/web:*"]
allowed_users = ["", "1234"]
services_limit = 1
disable_entrypoint_overwrite = true
""",
    "strict2": """
[runners.docker]
wait_for_services_timeout = 3
[[runners.docker.services]]
name = "fleet-test/web:1"
alias = "always"
environment = ["GREETING=runner"]
""",
    "tight": """
[runners.docker]
memory = "64m"
user = "1234"
cap_add = ["NET_ADMIN"]
cap_drop = ["CHOWN"]
hostname = "tight-host"
dns_search = ["corp.example"]
extra_hosts = ["elsewhere:10.9.8.7"]
shm_size = 16777216
volumes = ["/cache", "@directory@:/host:ro"]
[runners.docker.ulimit]
nofile = "512:512"
[runners.docker.tmpfs]
"/scratch" = "rw,size=1m"
[runners.docker.sysctls]
"net.ipv4.ip_unprivileged_port_start" = "77"
[runners.docker.container_labels]
team = "of-$CI_JOB_ID"
""",
    "privileged": """
[runners.docker]
privileged = true
allowed_privileged_images = ["fleet-test/full:*"]
disable_cache = true
""",
    "alone": """
[runners.docker]
network_mode = "none"
""",
    "pulls": """
[runners.docker]
pull_policy = ["always", "if-not-present"]
""",
}
DOCKER_TABLE = "[runners.docker]"
POOL = """
  [runners.autoscaler]
  plugin = "local"
  max_instances = 1
  capacity_per_instance = {slots}
  update_interval_when_expecting = "500ms"
  [[runners.autoscaler.policy]]
  idle_count = {idle}
  idle_time = "10m"
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything a case may ask for."""

    executor: str
    gitlab: Any
    manager: Manager
    runners: Mapping[str, int]
    short_tokens: Sequence[str] = ()
    engine: Engine | None = None
    registry: Registry | None = None
    front: Front | None = None
    secrets: dict[str, str] = field(default_factory=dict)
    pushes: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def left_over(self) -> dict[str, list[str]]:
        """What is on the engine of all jobs of this world, but for volumes, which may be kept."""
        found: dict[str, list[str]] = {"containers": [], "networks": []}
        for token in self.short_tokens if self.engine is not None else ():
            mine = self.engine.found(f"com.gitlab.gitlab-runner.runner.id={token}")
            found = {kind: names + mine[kind] for kind, names in found.items()}
        return found

    def project(self, case: Case) -> str:
        """The case's own project."""
        return f"pipelines/{case.id}"

    def words(self, case: Case) -> dict[str, str]:
        """What stands for `@...@` in the texts of a case."""
        secret = self.secrets.setdefault(case.id, secrets.token_hex(12))
        return {
            "@url@": self.gitlab.url,
            "@project@": self.project(case),
            "@secret@": secret,
            "@executor@": self.executor,
        } | ({} if self.registry is None else self._words_of(self.registry))

    def _words_of(self, registry: Registry) -> dict[str, str]:
        return {
            "@registry@": registry.address,
            "@front@": "" if self.front is None else self.front.address,
            "@auth-config@": json.dumps({"auths": {registry.address: {"auth": registry.basic}}}),
        }

    def fill(self, case: Case, value: Any) -> Any:
        """The same with its words put in, whatever it is made of."""
        if isinstance(value, str):
            if earlier := DEPENDENCY.fullmatch(value):
                return self.gitlab.dependency(self.numbers[case.id][int(earlier[1]) - 1], name="earlier")
            found = self._credentials(value)
            return self._filled(case, value) if found is None else found
        if isinstance(value, Mapping):
            return {self.fill(case, key): self.fill(case, each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.fill(case, each) for each in value]
        return value

    def _filled(self, case: Case, text: str) -> str:
        if "@" not in text:
            return text
        for word, meaning in self.words(case).items():
            text = text.replace(word, meaning)
        text = IMAGE.sub(lambda found: self.image(found[1]), text)
        return PUSHED.sub(lambda found: self.pushed(case, found[1]), text)

    def _credentials(self, text: str) -> list[dict[str, str]] | None:
        if self.registry is None or text not in {"@credentials@", "@wrong-credentials@"}:
            return None
        found = self.registry.credentials()
        return found if text == "@credentials@" else [each | {"password": "wrong"} for each in found]

    def image(self, name: str) -> str:
        """An image of `tests.docker.images`; where there is no engine, only its name."""
        return f"{PREFIX}/{name}:1" if self.engine is None else image(self.engine, name)

    def pushed(self, case: Case, name: str) -> str:
        """An image that only the registry has, in a repository of the case's own."""
        assert self.registry is not None
        assert self.engine is not None
        with self.lock:
            if case.id not in self.pushes:
                self.pushes[case.id] = self.registry.push(self.engine, name, repository=f"{case.id}/{name}")
        return self.pushes[case.id]

    def commit(self, case: Case, files: Mapping[str, str], **options: Any) -> GitSource:
        """Commit to the case's project."""
        source: GitSource = self.gitlab.commit(self.project(case), files, **options)
        return source


@contextlib.contextmanager
def running_world(
    directory: pathlib.Path, executor: str, *, engine: Engine | None = None, registry: Registry | None = None
) -> Iterator[World]:
    """It all runs inside the block; the protocol must have been kept."""
    with contextlib.ExitStack() as parts:
        gitlab = parts.enter_context(PretendGitLab(threads=128, knobs=Knobs(update_interval_s=1)))
        front = None if registry is None else parts.enter_context(running_front(registry))
        if front is not None:
            front.status = 429
        for name in () if engine is None else RECIPES:
            image(engine, name)
        (directory / "mounted").mkdir(parents=True)
        (directory / "mounted" / "file").write_text("of the machine\n", encoding="utf-8")
        words = {"@url@": gitlab.url, "@directory@": str(directory / "mounted")}
        words["@registry@"] = "" if registry is None else registry.address
        entries = {name: keys for name, keys in ENTRIES.items() if executor != DOCKER or name != "sh"}
        entries |= DOCKER_KEYS if executor == DOCKER else {}
        runners = {name: gitlab.create_runner(description=name) for name in entries}
        texts = [
            _entry(gitlab.url, runners[name]).format(
                executor=executor, own=keys.partition(DOCKER_TABLE)[0], tables=_tables(keys, engine, idle=0)
            )
            for name, keys in entries.items()
            if name != "plain"
        ]
        manager = Manager(
            directory,
            gitlab,
            executor=executor,
            runner=runners["plain"],
            pool=_with_words("\n".join([_tables(entries["plain"], engine, idle=1), *texts]), words),
        )
        world = World(
            executor=executor,
            gitlab=gitlab,
            manager=manager,
            runners={name: runner["id"] for name, runner in runners.items()},
            short_tokens=[short_token(runner["token"]) for runner in runners.values()],
            engine=engine,
            registry=registry,
            front=front,
        )
        manager.start()
        try:
            wait_until(lambda: manager.events("manager_started"), 60, "the start")
            yield world
            assert gitlab.violations() == []
        finally:
            manager.clear()


def _with_words(text: str, words: Mapping[str, str]) -> str:
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def _entry(url: str, runner: dict[str, Any]) -> str:
    return f"""
[[runners]]
name = "{runner["description"]}"
url = "{url}"
id = {runner["id"]}
token = "{runner["token"]}"
executor = "{{executor}}"
request_concurrency = 3
{{own}}
{{tables}}
"""


def _tables(keys: str, engine: Engine | None, *, idle: int) -> str:
    pool = POOL.format(slots=SLOTS, idle=idle)
    if engine is None:
        return pool
    docker = keys.partition(DOCKER_TABLE)[2]
    lines = [DOCKER_TABLE, f'host = "{engine.host}"', f'image = "{image(engine, "full")}"']
    lines += [] if "volumes =" in docker else ['volumes = ["/cache"]']
    lines += [] if "pull_policy" in docker else ['pull_policy = "if-not-present"']
    return "\n".join([*lines, docker]) + pool
