"""What the cases of the conformance pipeline run in: a pretend GitLab, one `fleetctl up`, one machine of many slots.

The configuration has an entry for each wish that only a runner's settings can show; a case names the entry that takes
its jobs. One machine serves all, so that a later job of a case finds what an earlier one left.
"""

from __future__ import annotations

import contextlib
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import GitSource
from fleet.demo.state import Knobs
from tests.acceptance.manager import Manager, wait_until
from tests.acceptance.pipelines.case import DOCKER, Case
from tests.docker.engine import Engine
from tests.docker.images import PREFIX, image
from tests.docker.registry import Registry

SLOTS = 10
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
}
DOCKER_KEYS: Mapping[str, str] = {}
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
    engine: Engine | None = None
    registry: Registry | None = None
    secrets: dict[str, str] = field(default_factory=dict)

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
            "@registry@": "" if self.registry is None else self.registry.address,
        }

    def fill(self, case: Case, value: Any) -> Any:
        """The same with its words put in, whatever it is made of."""
        if isinstance(value, str):
            return self._filled(case, value)
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
        while "@image/" in text:
            before, _, rest = text.partition("@image/")
            name, _, after = rest.partition("@")
            text = f"{before}{self.image(name)}{after}"
        return text

    def image(self, name: str) -> str:
        """An image of `tests.docker.images`; where there is no engine, only its name."""
        return f"{PREFIX}/{name}:1" if self.engine is None else image(self.engine, name)

    def commit(self, case: Case, files: Mapping[str, str], **options: Any) -> GitSource:
        """Commit to the case's project."""
        source: GitSource = self.gitlab.commit(self.project(case), files, **options)
        return source


@contextlib.contextmanager
def running_world(
    directory: pathlib.Path, executor: str, *, engine: Engine | None = None, registry: Registry | None = None
) -> Iterator[World]:
    """It all runs inside the block; the protocol must have been kept."""
    with PretendGitLab(threads=128, knobs=Knobs(update_interval_s=1)) as gitlab:
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
            pool="\n".join([_tables(entries["plain"], engine, idle=1), *texts]).replace("@url@", gitlab.url),
        )
        world = World(
            executor=executor,
            gitlab=gitlab,
            manager=manager,
            runners={name: runner["id"] for name, runner in runners.items()},
            engine=engine,
            registry=registry,
        )
        manager.start()
        try:
            wait_until(lambda: manager.events("manager_started"), 60, "the start")
            yield world
            assert gitlab.violations() == []
        finally:
            manager.clear()


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
    lines = [f'host = "{engine.host}"', docker]
    lines += [] if "image =" in docker else [f'image = "{image(engine, "full")}"']
    lines += [] if "pull_policy =" in docker else ['pull_policy = "if-not-present"']
    return f"  {DOCKER_TABLE}\n" + "\n".join(f"  {line}" for line in lines) + pool
