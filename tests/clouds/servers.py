"""Stand-ins of clouds, as processes of their own on private ports: S3 and STS, Cloud Storage, Blob Storage."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
AZURITE = ROOT / ".venv" / "node" / "node_modules" / ".bin" / "azurite-blob"
AZURITE_ACCOUNT = "devstoreaccount1"
PATIENCE_S = 60.0
MOTO = """
import sys, threading
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
GCS = """
import sys, tempfile
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """AWS by moto's server; its host and port."""
    with _python(MOTO) as port:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def cloud_storage() -> Iterator[str]:
    """Google Cloud Storage by an emulator; its host and port."""
    with _python(GCS) as port:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def azurite(directory: pathlib.Path, key: str) -> Iterator[str]:
    """Azure Blob Storage by Azurite; its host and port."""
    node = shutil.which("node")
    assert node is not None
    assert AZURITE.exists(), "azurite is missing: ./dev test installs it"
    arguments = [
        node, str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(directory), "--silent",
        "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip
    accounts = {"AZURITE_ACCOUNTS": f"{AZURITE_ACCOUNT}:{key}"}
    log = directory / "azurite.log"
    with log.open("wb") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out, env={**os.environ, **accounts})
    try:
        yield f"127.0.0.1:{_port_of(process, log)}"
    finally:
        process.terminate()
        process.wait(20)


def _port_of(process: subprocess.Popen[bytes], log: pathlib.Path) -> int:
    """Where it listens: it says so."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        for line in log.read_text().splitlines():
            if "listening" in line or "listens" in line:
                return int(line.rstrip().rstrip("/").rsplit(":", 1)[1])
        time.sleep(0.05)
    raise AssertionError(f"azurite did not come up: {log.read_text()}")


@contextlib.contextmanager
def _python(program: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def request(
    method: str, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """One plain HTTP request, by nothing that knows a cloud."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request(method, "/" + path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
