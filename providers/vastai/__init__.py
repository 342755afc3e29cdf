"""Vast.ai: a marketplace of containers on other people's hosts, rented by `ask` and called instances."""

from providers.vastai.adapter import VastAI

__all__ = ["VastAI"]
