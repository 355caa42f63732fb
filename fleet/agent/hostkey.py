"""Replaces the machine's SSH host key by one that only the manager knows.

Rule: root only; the new pair is in place, whole, before the server is told to read it; the old pair is not kept. The
folder is /etc/ssh, or $FLEET_SSH_DIR where a machine is a process; its server, if it must be told, has its pid file
there, and no other server is told anything.
"""

from __future__ import annotations

import os
import signal

from . import home, system
from .errors import Refused

SYSTEM = "/etc/ssh"
PID_FILES = ("/run/sshd.pid", "/var/run/sshd.pid")
KINDS = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}


def rekey(private: str, public: str) -> None:
    """Put the pair in place and let the server read it."""
    if os.geteuid() != 0:
        raise Refused("not_root", "only root may replace the SSH host key, and the agent is not root")
    kind = public.split(" ", 1)[0]
    name = KINDS.get(kind, "ecdsa" if kind.startswith("ecdsa-sha2-") else None)
    if name is None:
        raise Refused("bad_frame", "%r is no kind of SSH host key" % kind)
    folder = os.environ.get("FLEET_SSH_DIR", SYSTEM)
    path = os.path.join(folder, "ssh_host_%s_key" % name)
    try:
        home.write(path, private.encode(), durable=True)
        home.write(path + ".pub", public.strip().encode() + b"\n", durable=True)
        os.chmod(path + ".pub", 0o644)
    except OSError as exc:
        raise Refused("failed", "the SSH host key cannot be written: %s" % exc) from exc
    for pid_file in PID_FILES if folder == SYSTEM else (os.path.join(folder, "sshd.pid"),):
        pid = system.read_text(pid_file).strip()
        if pid.isdigit() and system.read_text("/proc/%s/comm" % pid).strip() == "sshd":
            system.send(int(pid), signal.SIGHUP)
            return
