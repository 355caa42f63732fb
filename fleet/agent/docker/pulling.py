"""Brings an image to the machine, by the pull policies in their order.

Rule: what a registry's hiccup may be is tried three times, then the next policy has its turn. Whose fault it is, is
read from the engine's words: a network or a registry that fails is not the job's, a name or a password that is wrong is
a setting to mend.
"""

from __future__ import annotations

import random
import re
import time

from .engine import Answer, Engine, Failed, write_credentials

ALWAYS, IF_NOT_PRESENT, NEVER = "always", "if-not-present", "never"
TRIES = 3
PAUSE_S = (2.0, 10.0)
PULL_S = 3600.0
IS_ID = re.compile(r"(sha256:)?[0-9a-f]{64}\Z")
OUTSIDE = re.compile(
    r"dial tcp|connection refused|no such host|i/o timeout|tls handshake|connection reset|timeout exceeded"
    r"|client\.timeout|temporary failure|network is unreachable|unexpected eof|\beof\b"
    r"|\b50[0234]\b|internal server error|bad gateway|service unavailable|server misbehaving|no route to host",
    re.IGNORECASE,
)
MISTAKEN = re.compile(
    r"not found|manifest unknown|denied|unauthorized|authentication required|no basic auth|invalid reference"
    r"|repository does not exist|no matching manifest|name unknown|short-name|incorrect username",
    re.IGNORECASE,
)
SHUT = re.compile(r"denied|unauthorized|authentication required|no basic auth|incorrect username", re.IGNORECASE)


def classify(text: str) -> str:
    """GitLab's reason for a pull that failed with these words."""
    if OUTSIDE.search(text):
        return "runner_external_dependency_failure"
    if MISTAKEN.search(text):
        return "runner_configuration_error"
    return "image_pull_failure"


def advice(text: str) -> str:
    """What a person can do about it."""
    if "toomanyrequests" in text.lower() or "too many requests" in text.lower():
        return "the registry limits how often images are pulled: log in to it (DOCKER_AUTH_CONFIG), or use a mirror"
    if OUTSIDE.search(text):
        return "the registry cannot be reached or does not answer: check it and the machine's network, then retry"
    if SHUT.search(text):
        return "check the image's name, and the credentials in DOCKER_AUTH_CONFIG or of the runner"
    if MISTAKEN.search(text):
        return "check the image's name and tag"
    return "see what the engine says above"


class Puller:
    """The images of one job; each is brought once."""

    def __init__(self, engine: Engine, say, folder: str) -> None:
        self._engine = engine
        self._say = say
        self._folder = folder
        self._known = {}

    def bring(self, wanted: dict) -> dict:
        """The image (as the engine knows it) that a container is to be made from; raises Failed."""
        name, platform = wanted["image"], wanted.get("platform") or ""
        if (name, platform) not in self._known:
            self._known[name, platform] = self._bring(name, platform, wanted)
        image = self._known[name, platform]
        self._say("Using docker image %s for %s with digest %s ..." % (image["Id"], name, _digest(image, name)))
        return image

    def _bring(self, name: str, platform: str, wanted: dict) -> dict:
        policies = wanted.get("pull") or [ALWAYS]
        last = None
        for number, policy in enumerate(policies):
            if number:
                self._say("Trying the next pull policy, %s ..." % policy)
            try:
                return self._by(policy, name, platform, wanted)
            except Failed as exc:
                last = exc
                self._say('WARNING: Failed to pull image with policy "%s": %s' % (policy, exc.message))
        raise last

    def _by(self, policy: str, name: str, platform: str, wanted: dict) -> dict:
        if policy == NEVER or IS_ID.match(name):
            present = self._present(name)
            if present is None:
                message = "image %s is not on this machine, and the pull policy is never" % name
                raise Failed("runner_configuration_error", message + ": pull it beforehand, or allow another policy")
            return present
        if policy == IF_NOT_PRESENT:
            present = self._present(name)
            if present is not None and _is_of(present, platform):
                self._say('Using locally found image version due to "if-not-present" pull policy')
                return present
        self._pull(name, platform, wanted.get("auth"))
        present = self._present(name)
        if present is None:
            raise Failed("image_pull_failure", "image %s is not there after it was pulled" % name)
        return present

    def _present(self, name: str) -> dict | None:
        return self._engine.inspect("image", name)

    def _pull(self, name: str, platform: str, auth: dict | None) -> None:
        if auth is not None:
            self._say("Authenticating with credentials from %s" % auth.get("source", "the runner"))
        self._say("Pulling docker image %s ..." % name)
        config = write_credentials(self._folder, auth)
        words = ["pull", "--quiet", *(["--platform", platform] if platform else []), name]
        for attempt in range(1, TRIES + 1):
            answer = self._engine.ask(*words, within_s=PULL_S, config=config)
            if answer.is_good:
                return
            reason = _reason(answer)
            if reason == "runner_configuration_error" or attempt == TRIES:
                break
            self._say(
                "WARNING: the pull failed: %s. Attempt %d of %d follows" % (answer.complaint(), attempt + 1, TRIES)
            )
            time.sleep(random.uniform(*PAUSE_S))  # so that many jobs do not come back together
        raise Failed(reason, 'failed to pull image "%s": %s (%s)' % (name, answer.complaint(), advice(answer.errors)))


def _reason(answer: Answer) -> str:
    if answer.is_unreachable and "docker daemon" in answer.errors.lower():
        return "runner_system_failure"
    return classify(answer.errors)


def _is_of(image: dict, platform: str) -> bool:
    """Whether an image that is here is of the wanted platform, as far as both say."""
    parts = platform.split("/")
    own = [image.get("Os") or "", image.get("Architecture") or ""]
    return not platform or all(not mine or mine == wanted for mine, wanted in zip(own, parts))  # noqa: B905  new in Python 3.10; the variant is not compared


def _digest(image: dict, name: str) -> str:
    digests = image.get("RepoDigests") or []
    bare = name.split("@", 1)[0]
    near = [digest for digest in digests if digest.split("@", 1)[0] == bare.rsplit(":", 1)[0]]
    return (near or digests or [name])[0]
