"""Protocols are frozen: a changed definition needs another name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wellkit.benchmark.protocols import DEFAULT_PROTOCOL, PROTOCOLS, get_protocol
from wellkit.errors import ArgumentError

# Of the definitions as they were published. Where this test fails, a protocol was changed: undo it, or add a new
# protocol with a new name beside the old one.
FROZEN = {
    "well-2024": "05a0267ecc13efacb84f8d3ac3ac94df0340bf62bb2750f7a4e869daf330b096",
    "walrus-style-1": "33dd131a05387cfd4f00c6a2e775403aeecd505698348afb45b5658c0d058d03",
    "wellkit-1": "80202bfbf0001660041faa7e72a79df379f7d26723cf5184e5e282da7ed67994",
}


def test_definitions_are_what_they_were() -> None:
    assert {name: protocol.definition_sha256 for name, protocol in PROTOCOLS.items()} == FROZEN
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert DEFAULT_PROTOCOL in PROTOCOLS


def test_protocols_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PROTOCOLS["wellkit-1"].eps = 1.0  # type: ignore[misc]
    changed = PROTOCOLS["wellkit-1"].model_copy(update={"eps": 1.0})
    assert changed.definition_sha256 != FROZEN["wellkit-1"]


@pytest.mark.parametrize(("name", "n", "first"), [("well-2024", 4, 4), ("wellkit-1", 2, 2), ("walrus-style-1", 6, 17)])
def test_where_rollouts_begin(name: str, n: int, first: int) -> None:
    assert get_protocol(name).first_frame(n) == first


def test_unknown_protocols_are_told_with_near_matches() -> None:
    with pytest.raises(ArgumentError, match="choose one of well-2024, walrus-style-1, wellkit-1"):
        get_protocol("wellkit-2")
