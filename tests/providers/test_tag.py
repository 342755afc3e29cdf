from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import tag
from providers.tag import Ownership

DEADLINE = datetime(2026, 1, 30, 0, 0, tzinfo=UTC)
KEY = "one key"


def test_a_fresh_tag_reads_as_ours_and_states_its_deadline() -> None:
    label = tag.mint("prod1", DEADLINE, KEY)
    reading = tag.read(label, "prod1", [KEY])
    assert reading.ownership is Ownership.OURS
    assert reading.deadline == DEADLINE


def test_a_tag_keeps_to_what_both_providers_take() -> None:
    label = tag.mint("abcdefghijkl", DEADLINE, KEY)
    assert len(label) <= tag.MAX_LENGTH
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_two_tags_never_meet() -> None:
    assert len({tag.mint("prod1", DEADLINE, KEY) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("label", "ownership"),
    [
        (None, Ownership.FOREIGN),
        ("", Ownership.FOREIGN),
        ("my training box", Ownership.FOREIGN),
        ("gs-other1-aaaaaaaaaaaaaaaa-000000-aaaaaaaaaaaa", Ownership.FOREIGN),
        ("gs-prod1-aaaaaaaaaaaaaaaa-t9lz40-aaaaaaaaaaaa", Ownership.SUSPECT),
        ("gs-prod1-aaaaaaa", Ownership.SUSPECT),
        ("gs-pro", Ownership.SUSPECT),
        ("gs-prod11-aaaaaaaaaaaaaaaa-000000-aaaaaaaaaaaa", Ownership.FOREIGN),
    ],
    ids=["untold", "empty", "a person's", "another deployment", "forged", "cut off", "cut off early", "look-alike"],
)
def test_what_is_not_signed_by_us_is_never_ours(label: str | None, ownership: Ownership) -> None:
    assert tag.read(label, "prod1", [KEY]).ownership is ownership


@given(st.integers(0, 59), st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-A "))
def test_one_changed_letter_is_not_ours(position: int, letter: str) -> None:
    label = tag.sign("prod1", "a" * 16, DEADLINE, KEY)
    position %= len(label)
    changed = label[:position] + letter + label[position + 1 :]
    if changed != label:
        assert tag.read(changed, "prod1", [KEY]).ownership is not Ownership.OURS


def test_an_earlier_tag_key_still_verifies() -> None:
    label = tag.mint("prod1", DEADLINE, "old")
    assert tag.read(label, "prod1", ["new", "old"]).ownership is Ownership.OURS
    assert tag.read(label, "prod1", ["new"]).ownership is Ownership.SUSPECT
