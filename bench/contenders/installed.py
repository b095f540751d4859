"""What has to be installed before a contender can be opened, in the words of fastlstm.roads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlstm.roads import ROADS

if TYPE_CHECKING:
    from collections.abc import Callable


def needs_of(road: str) -> Callable[[], str]:
    """The `missing` of the road of that name."""
    (found,) = (one for one in ROADS if one.name == road)
    return found.missing


def nothing() -> str:
    """The `missing` of what needs nothing but fastlstm itself."""
    return ""
