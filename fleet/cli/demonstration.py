"""`fleetctl up --demo`: everything on this host alone, a pipeline to watch, and nothing left behind.

A pretend GitLab on loopback, SQLite in a temporary directory, and machines that are processes with real SSH servers.
The manager is the real one.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile
import threading
from dataclasses import replace

from rich.console import Console
from rich.markup import escape

from fleet.cli.up import prepare
from fleet.demo.gitlab import PretendGitLab
from fleet.demo.pipeline import Progress, ProgressKind, run_pipeline
from fleet.runtime.signals import Life
from fleet.settings.environment import Env, Overrides
from fleet.settings.manager import LogLevel, OnTerm

CONFIG = """\
# The configuration of this demonstration. With your own GitLab it looks the same:
# its address as url, a runner authentication token as token, and your cloud as plugin.
concurrent = 4
check_interval = 1

[fleet]
state_dir = "{state}"
api_listen = "127.0.0.1:0"
reserve_free_bytes = 0

[[runners]]
name = "demo"
url = "{url}"
id = {id}
token = "{token}"
executor = "instance"
request_concurrency = 4

  [runners.autoscaler]
  plugin = "local"
  max_instances = 2
  update_interval_when_expecting = "500ms"
  delete_instances_on_shutdown = true

    [[runners.autoscaler.policy]]
    idle_count = 1
    idle_time = "1m"
"""
OWN = """
That was GitLab's part played by a stand-in; the manager, the SSH connections and the agent were real.

To run jobs of your own GitLab:
  1. In GitLab: Settings > CI/CD > Runners > New runner; copy its token (glrt-...).
  2. fleetctl register --config fleet.toml --url https://gitlab.example.com --token TOKEN --executor instance
  3. fleetctl check --config fleet.toml, then: fleetctl up --config fleet.toml

docs/tutorial/own-gitlab.md goes through it in ten minutes.
"""
COLOURS = ("cyan", "magenta", "yellow", "blue")


def demonstrate(asked: Overrides, env: Env) -> int:
    """Run the sample pipeline; returns the exit code."""
    screen = Console(highlight=False, soft_wrap=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    try:
        with PretendGitLab() as gitlab:
            runner = gitlab.create_runner(description="demo")
            config = directory / "fleet.toml"
            config.write_text(
                CONFIG.format(state=directory / "state", url=gitlab.url, id=runner["id"], token=runner["token"])
            )
            asked = replace(asked, log_level=asked.log_level or LogLevel.WARNING, database=None, state_dir=None)
            screen.print("[bold]fleet[/bold] shows a pipeline of six jobs on two machines of this host.")
            screen.print(f"  a pretend GitLab    {gitlab.url}")
            screen.print(f"  the configuration   {config}")
            life = prepare(config, asked, env)
            if isinstance(life, int):
                return life
            watcher = _Watcher(screen, gitlab, life)
            life.install()
            watcher.thread.start()
            life.run()
            watcher.thread.join(10)
            return watcher.result(gitlab)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Watcher:
    """Queues the pipeline, shows what happens, and ends the manager when it is over."""

    def __init__(self, screen: Console, gitlab: PretendGitLab, life: Life) -> None:
        self._screen = screen
        self._gitlab = gitlab
        self._life = life
        self._colours: dict[str, str] = {}
        self._passed = False
        self.thread = threading.Thread(target=self._run, name="demo", daemon=True)

    def _run(self) -> None:
        try:
            for progress in run_pipeline(self._gitlab):
                self._show(progress)
                self._passed = progress.kind is ProgressKind.PIPELINE_ENDED and progress.is_good
                if self._life.wishes.how is not None:
                    return
        except TimeoutError as exc:
            print(f"fleetctl: {exc}", file=sys.stderr)
        finally:
            self._screen.print("\nThe machines are given back ...", style="dim")
            self._life.wishes.want(OnTerm.DRAIN)

    def _show(self, progress: Progress) -> None:
        colour = self._colours.setdefault(progress.job_name, COLOURS[len(self._colours) % len(COLOURS)])
        name = f"[{colour}]{escape(progress.job_name):>14}[/{colour}]"
        match progress.kind:
            case ProgressKind.STAGE_BEGAN:
                self._screen.print(f"\n[bold]stage {escape(progress.stage)}[/bold]")
            case ProgressKind.JOB_BEGAN:
                self._screen.print(f"{name}  [dim]taken[/dim]")
            case ProgressKind.JOB_OUTPUT:
                if progress.text.strip():
                    self._screen.print(f"{name}  {escape(progress.text)}")
            case ProgressKind.JOB_ENDED:
                tone = "green" if progress.is_good else "red"
                told = f"{escape(progress.text)} after {progress.elapsed_s:.1f} s"
                self._screen.print(f"{name}  [{tone}]{told}[/{tone}]")
            case ProgressKind.PIPELINE_ENDED:
                mark = "[green]passed[/green]" if progress.is_good else "[red]failed[/red]"
                self._screen.print(f"\n[bold]The pipeline {mark} after {progress.elapsed_s:.1f} s.[/bold]")
            case ProgressKind.JOB_QUEUED:
                pass

    def result(self, gitlab: PretendGitLab) -> int:
        """Say how it went; the exit code."""
        for violation in gitlab.violations():
            print(f"fleetctl: the protocol was broken: {violation}", file=sys.stderr)
        if not self._passed or gitlab.violations():
            return 1
        self._screen.print(OWN)
        return 0
