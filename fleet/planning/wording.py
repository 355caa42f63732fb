"""Instants, spans and counts in the words of reasons, so that every reason reads alike."""

from __future__ import annotations

from datetime import datetime, timedelta


def instant(at: datetime) -> str:
    """2026-03-01T08:00:00Z."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def span(length: timedelta) -> str:
    """1h2m3s, as the configuration writes it."""
    seconds = max(0, int(length.total_seconds()))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def counted(number: int, noun: str) -> str:
    """1 slot, 2 slots."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
