"""What an adapter is called, what it claims, and how it comes to be."""

from __future__ import annotations

import re
from datetime import timedelta

from providers.base import Provider, Traits
from providers.conformance.stage import Stage


class Names:
    def test_the_adapter_has_every_verb(self, stage: Stage) -> None:
        assert isinstance(stage.provider, Provider)

    def test_its_name_is_short_and_plain(self, stage: Stage) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", stage.provider.name)

    def test_its_traits_are_such_that_the_rules_can_go_by_them(self, stage: Stage) -> None:
        traits = stage.provider.traits
        assert isinstance(traits, Traits)
        # Without a time to settle, a machine whose create was lost would be taken for one that was never made.
        assert timedelta(seconds=30) <= traits.settle <= timedelta(hours=2)
        assert traits.min_disk_gb >= 0
        assert traits.disk_step_gb >= 1
        assert traits.dead_man in ("", "destroys", "powers_off")

    def test_without_a_key_there_is_no_adapter(self, stage: Stage) -> None:
        assert stage.scene.adapter.from_env({}) is None

    def test_what_can_be_no_key_is_told_without_showing_it(self, stage: Stage) -> None:
        told = ""
        try:
            made = stage.scene.adapter.from_env(stage.scene.env("half-a-key\nand: the other half"))
        except ValueError as error:
            made, told = None, str(error)
        assert made is None
        assert "half" not in told
