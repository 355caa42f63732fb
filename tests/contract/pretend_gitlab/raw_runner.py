"""A raw client of the runner protocol: it behaves well unless a test tells it not to."""

from __future__ import annotations

import secrets
import zlib
from typing import Any

import httpx

FEATURES = {
    "trace_reset": True,
    "trace_checksum": True,
    "trace_size": True,
    "cancelable": True,
    "cancel_gracefully": True,
}
INFO: dict[str, Any] = {
    "name": "gitlab-runner", "version": "18.6.0", "revision": "abc123", "platform": "linux",
    "architecture": "amd64", "executor": "shell", "shell": "bash", "features": FEATURES,
}  # fmt: skip
WANTS_JSON = {"Accept": "application/json"}


class RawJob:
    """A job that was handed to us, and the bytes sent for it."""

    def __init__(self, client: httpx.Client, payload: dict[str, Any]) -> None:
        self.client = client
        self.payload = payload
        self.id: int = payload["id"]
        self.token: str = payload["token"]
        self.sent = b""

    def put(self, state: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"info": INFO, "token": self.token, "state": state} | fields
        return self.client.put(f"jobs/{self.id}", json=body, headers={"JOB-TOKEN": self.token} | (headers or {}))

    def acknowledge(self) -> httpx.Response:
        return self.put("running")

    def patch(self, chunk: bytes, start: int | None = None, **headers: str) -> httpx.Response:
        begin = len(self.sent) if start is None else start
        given = {
            "JOB-TOKEN": self.token,
            "Content-Type": "text/plain",
            "Content-Range": f"{begin}-{begin + len(chunk) - 1}",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.client.patch(f"jobs/{self.id}/trace?debug_trace=false", content=chunk, headers=given)
        if response.status_code == 202:
            self.sent = self.sent[:begin] + chunk
        return response

    def output(self) -> dict[str, Any]:
        return {"checksum": f"crc32:{zlib.crc32(self.sent):08x}", "bytesize": len(self.sent)}

    def finish(self, state: str = "success", **fields: Any) -> httpx.Response:
        return self.put(state, **({"output": self.output()} | fields))


class RawRunner:
    """One manager process: its system id, its connections."""

    def __init__(self, url: str, token: str, *, verify: Any = True) -> None:
        self.token = token
        self.system_id = "s_" + secrets.token_hex(6)
        self.last_update = ""
        self.client = httpx.Client(base_url=f"{url}/api/v4/", timeout=20, verify=verify)

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        given = {"RUNNER-TOKEN": str(body.get("token", "")), **WANTS_JSON} | (headers or {})
        return self.client.request(method, path, json=body, headers=given)

    def poll(self, **fields: Any) -> httpx.Response:
        body = {"info": INFO, "token": self.token, "system_id": self.system_id, "last_update": self.last_update}
        headers = fields.pop("headers", None)
        response = self.call("POST", "jobs/request", headers=headers, **(body | fields))
        self.last_update = response.headers.get("X-GitLab-Last-Update", self.last_update)
        return response

    def take(self) -> RawJob:
        response = self.poll()
        assert response.status_code == 201, response.text
        return RawJob(self.client, response.json())

    def take_and_acknowledge(self) -> RawJob:
        job = self.take()
        assert job.acknowledge().status_code == 200
        return job

    def close(self) -> None:
        self.client.close()
