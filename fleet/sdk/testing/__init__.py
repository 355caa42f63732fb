"""For tests of plugins and of the manager: a cloud in memory, and clouds with one illness each.

An illness is a wrapper around a provider that works, named for what is wrong with it, so any provider can be made ill
and several illnesses can be put on top of each other. See `fleet.sdk.testing.illnesses`.
"""

from fleet.sdk.testing.illnesses import (
    ILLNESSES,
    BlindCloud,
    BuggyCloud,
    ForgetfulCloud,
    FullCloud,
    HangingCloud,
    LaggingCloud,
    LockedCloud,
    LyingCloud,
    RefusingCloud,
    ShortCloud,
    SickCloud,
    SlowCloud,
    StubbornCloud,
    StutteringCloud,
    ThrottlingCloud,
)
from fleet.sdk.testing.memory import MemoryCloud

__all__ = [
    "ILLNESSES",
    "BlindCloud",
    "BuggyCloud",
    "ForgetfulCloud",
    "FullCloud",
    "HangingCloud",
    "LaggingCloud",
    "LockedCloud",
    "LyingCloud",
    "MemoryCloud",
    "RefusingCloud",
    "ShortCloud",
    "SickCloud",
    "SlowCloud",
    "StubbornCloud",
    "StutteringCloud",
    "ThrottlingCloud",
]
