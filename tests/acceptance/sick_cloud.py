"""An outside plugin for tests: local machines behind clouds whose illnesses a file orders while the manager runs.

It is installed as any plugin is, by an entry point of a distribution on the path, and imports `fleet.sdk` (and the
built-in place that it makes ill). `orders` names a file with a JSON list of [illness, keywords]; the last one is
outermost. Every call is noted in `<orders>.calls`, one JSON line each: when it began, what it was, how it ended.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import threading
import time

from fleet.places.local.provider import LocalProvider
from fleet.sdk import HostKey, ProviderSetting, hookimpl
from fleet.sdk.testing import ILLNESSES, SickCloud


class ImpostorCloud(SickCloud):
    """The machines show another host key than the one that was handed over."""

    def create(self, request):
        from fleet.machine.keys import make_key_pair  # noqa: PLC0415  only this illness needs keys

        pair = make_key_pair()
        return super().create(dataclasses.replace(request, host_key=HostKey(private=pair.private, public=pair.public)))


class NamelessCloud(SickCloud):
    """The machines are made without our public key: nobody can log in."""

    def create(self, request):
        from fleet.machine.keys import make_key_pair  # noqa: PLC0415  only this illness needs keys

        return super().create(dataclasses.replace(request, client_public_key=make_key_pair().public))


KNOWN = {**ILLNESSES, "ImpostorCloud": ImpostorCloud, "NamelessCloud": NamelessCloud}


class OrderedCloud:
    """Does as the orders say at the moment of each call."""

    def __init__(self, setting: ProviderSetting) -> None:
        config = dict(setting.plugin_config)
        self._orders = pathlib.Path(config.pop("orders"))
        self._account = config.pop("account", "sick")
        self._call_timeout_s = float(config.pop("call_timeout_s", 30))
        self._lag_s = float(config.pop("lag_s", 2))
        self._well = LocalProvider(dataclasses.replace(setting, plugin_config=config))
        self._lock = threading.Lock()
        self._text = ""
        self._cloud = self._well

    def info(self):
        return dataclasses.replace(
            self._well.info(),
            name="sick",
            account=self._account,
            call_timeout_s=self._call_timeout_s,
            visibility_lag_s=self._lag_s,
        )

    def create(self, request):
        name = request.placement.get("name")
        return self._noted("create", lambda cloud: cloud.create(request), token=request.token, placement=name)

    def list(self):
        return self._noted("list", lambda cloud: list(cloud.list()))

    def delete(self, machine_ids):
        return self._noted("delete", lambda cloud: cloud.delete(machine_ids), machines=[*machine_ids])

    def close(self):
        self._cloud.close()

    def _noted(self, call, do, **more):
        began, how = time.time(), "hangs"
        cloud = self._ordered()
        if call != "list":
            self._note(call, began, "begun", more)
        try:
            done = do(cloud)
        except BaseException as exc:
            how = type(exc).__name__
            raise
        else:
            how = "done"
            return done
        finally:
            self._note(call, began, how, more)

    def _note(self, call, began, how, more):
        line = json.dumps({"call": call, "at": began, "how": how, **more})
        with self._lock, self._orders.with_suffix(".calls").open("a") as file:
            file.write(line + "\n")

    def _ordered(self):
        try:
            text = self._orders.read_text()
        except FileNotFoundError:
            text = ""
        with self._lock:
            if text != self._text:
                self._text, before = text, self._cloud
                self._cloud = self._well
                for name, keywords in json.loads(text or "[]"):
                    self._cloud = KNOWN[name](self._cloud, **keywords)
                before.close()  # what hung goes on now
            return self._cloud


@hookimpl
def fleet_provider(plugin: str, setting: ProviderSetting):
    return OrderedCloud(setting) if plugin == "sick" else None
