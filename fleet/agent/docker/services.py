"""Services beside the job: started before it, waited for, their logs shown when they fail or when asked for.

Rule: a service that does not answer never fails the job; the job's own words tell whether it needed it. Whether it
answers is seen from this machine where its network can be reached from here, else from a helper container in it.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time

from .engine import Engine, Failed

LOG_LINES = "200"
LOOK_EVERY_S = 0.25
STARS = "*********"


class Service:
    """One service container that was started."""

    def __init__(self, spec: dict, container: str, ports: list) -> None:
        self.spec = spec
        self.container = container
        self.ports = ports
        self.alias = (spec.get("aliases") or [spec["name"]])[0]


def ports_of(spec: dict, image: dict) -> list:
    """The TCP ports on which the service is waited for."""
    chosen = (spec.get("environment") or {}).get("HEALTHCHECK_TCP_PORT", "")
    if chosen.isdigit():
        return [int(chosen)]
    exposed = (image.get("Config") or {}).get("ExposedPorts") or {}
    names = [name.partition("/") for name in exposed]
    found = {int(number) for number, _, kind in names if number.isdigit() and kind in {"", "tcp"}}
    found |= {int(port) for port in spec.get("ports") or [] if port}
    return sorted(found)


class Waiting:
    """Waits for all services at once."""

    def __init__(self, engine: Engine, services: list, say, probe=None) -> None:
        self._engine = engine
        self._services = services
        self._say = say
        self._probe = probe  # asks from within the network: (service, port) -> bool; None: from this machine

    def run(self, within_s: float) -> None:
        """Wait until each answers on one of its ports, has ended, or the time is up."""
        waiting = [service for service in self._services if service.ports]
        if not waiting or within_s < 0:
            return
        self._say("Waiting for services to be up and running (timeout %d seconds)..." % within_s)
        give_up_at = time.monotonic() + within_s
        failed = []
        while waiting:
            for service in list(waiting):
                state = self._look(service)
                if state is None and time.monotonic() >= give_up_at:
                    state = "service %s did not answer on port %s" % (service.alias, _words(service.ports))
                if state is not None:
                    waiting.remove(service)
                    failed += [(service, state)] if state else []
            if waiting:
                time.sleep(LOOK_EVERY_S)
        for service, problem in failed:
            self._warn(service, problem)

    def _look(self, service: Service) -> str | None:
        """Empty: it answers; None: not yet; else what is wrong."""
        known = self._engine.inspect("container", service.container) or {}
        state = known.get("State") or {}
        if not state.get("Running"):
            return "the service has ended with exit code %s%s" % (state.get("ExitCode", "?"), _memory(state))
        for port in service.ports:
            if self._answers(service, known, port):
                return ""
        return None

    def _answers(self, service: Service, known: dict, port: int) -> bool:
        if self._probe is not None:
            return self._probe(service, port)
        return any(answers(address, port) for address in addresses(known))

    def _warn(self, service: Service, problem: str) -> None:
        say = self._say
        say("")
        say("\x1b[0;33m*** WARNING: Service %s probably didn't start properly.\x1b[0;m" % service.spec["name"])
        say("")
        say("Health check error:")
        say(problem)
        say("")
        say("Service container logs:")
        shown = self._engine.ask("logs", "--tail", LOG_LINES, service.container)
        for line in (shown.output + shown.errors).splitlines():
            say(line)
        say("")
        say("\x1b[0;33m%s\x1b[0;m" % STARS)
        say("")


def addresses(known: dict) -> list:
    """Where a container can be reached; on this machine's own network, this machine."""
    settings = known.get("NetworkSettings") or {}
    networks = settings.get("Networks") or {}
    found = [network.get("IPAddress") for network in networks.values() if network] + [settings.get("IPAddress")]
    return [address for address in dict.fromkeys(found) if address] or (["127.0.0.1"] if "host" in networks else [])


def answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def _words(ports: list) -> str:
    return " or ".join(str(port) for port in ports)


def _memory(state: dict) -> str:
    return " (it ran out of memory)" if state.get("OOMKilled") else ""


def relay_log(engine: Engine, container: str, alias: str) -> None:
    """In a child: copy a service's log to standard output, each line with the service's name, until it ends."""
    if engine.found is None:
        raise Failed("runner_system_failure", "there is no %s on this machine" % engine.program)
    mark = ("[service:%s] " % alias).encode("utf-8", "replace")
    with subprocess.Popen(
        engine.command("logs", "--follow", container),
        env=engine.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as following:
        number = following.stdout.fileno()
        line = b""
        while select.select([number], [], []):
            data = os.read(number, 65536)
            if not data:
                break
            *lines, line = (line + data).split(b"\n")
            if lines:
                os.write(1, b"".join(mark + each + b"\n" for each in lines))
        if line:
            os.write(1, mark + line + b"\n")
