"""A server that gives the answers it was told, by path, and remembers what it was asked; with TLS where wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from tests.contract.secrets.listening import Answer, Call, Listening


@dataclass(slots=True)
class ScriptedServer(Listening):
    """`answers` by the beginning of the path, each list in turn, its last again and again. Use it as a context."""

    answers: Mapping[str, Sequence[Answer]]
    certificate: tuple[str, str] | None = None
    calls: list[Call] = field(default_factory=list)
    url: str = ""
    _server: Any = None
    _thread: Any = None
    _given: dict[str, int] = field(default_factory=dict)

    @override
    def answer(self, call: Call) -> Answer:
        self.calls.append(call)
        for start in sorted(self.answers, key=len, reverse=True):
            if call.path.startswith(start or "/"):
                listed = self.answers[start]
                number = self._given.get(start, 0)
                self._given[start] = number + 1
                return listed[min(number, len(listed) - 1)]
        return 404, {}, b"{}"
