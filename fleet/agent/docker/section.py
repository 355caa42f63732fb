"""Checks the part `containers` of a job file before anything is promised for it."""

from __future__ import annotations

WANTED = (("labels", dict), ("places", list), ("image", dict), ("helper", dict))
LISTS = ("volumes", "mounts", "services")


def problem_with(section: object) -> str:
    """What is wrong; empty when nothing is."""
    if not isinstance(section, dict):
        return "`containers` is no object"
    for name, kind in WANTED:
        if not isinstance(section.get(name), kind):
            return "`containers.%s` is missing or of the wrong type" % name
    for name in LISTS:
        if not isinstance(section.get(name) or [], list):
            return "`containers.%s` is no list" % name
    if not all(isinstance(place, dict) and str(place.get("path", "")).startswith("/") for place in section["places"]):
        return "an entry of `containers.places` has no absolute path"
    return _problem_with_names(section)


def _problem_with_names(section: dict) -> str:
    for spec in (section["image"], section["helper"], *(section.get("services") or [])):
        if not isinstance(spec, dict) or not spec.get("image") or not spec.get("container"):
            return "an image or a container of `containers` has no name"
    network = section.get("network")
    if network is not None and (not isinstance(network, dict) or not network.get("name")):
        return "`containers.network` has no name"
    return ""
