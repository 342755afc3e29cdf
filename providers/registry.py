"""Which providers this deployment has: the built-in adapters, and plug-ins by entry point.

A plug-in is a class with a `from_env(env)` that gives an adapter, or None where its key is not set. One that
fails to load, or whose key can't be right, is a problem with a sentence, never a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

from providers.base import Provider
from providers.http import Pacer

GROUP = "gpu_shopper.providers"


@dataclass(frozen=True, slots=True)
class Loaded:
    providers: dict[str, Provider] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # by the adapter's name; each a sentence for a person


def load(env: Mapping[str, str], *, pacer: Pacer | None = None) -> Loaded:
    """Every adapter whose key is in `env`. `pacer` goes to those that take one; None: each paces itself."""
    loaded = Loaded()
    for name, find in _factories():
        try:
            provider = _made(find().from_env, env, pacer)
        except Exception as error:  # A plug-in may raise anything; it must not take the service with it.
            loaded.problems[name] = _sentence(error)
            continue
        if provider is None:
            continue
        if provider.name in loaded.providers:
            loaded.problems[name] = f"another adapter has the name {provider.name} already; this one is left out"
        else:
            loaded.providers[provider.name] = provider
    return loaded


def _made(from_env: Callable[..., Provider | None], env: Mapping[str, str], pacer: Pacer | None) -> Provider | None:
    if pacer is not None and "pacer" in signature(from_env).parameters:
        return from_env(env, pacer=pacer)
    return from_env(env)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"it can't be loaded: {type(error).__name__}: {error}"


def _factories() -> Iterator[tuple[str, Any]]:
    yield "vastai", _vastai
    yield "tensordock", _tensordock
    for point in entry_points(group=GROUP):
        yield point.name, point.load


def _vastai() -> Any:
    from providers.vastai import VastAI

    return VastAI


def _tensordock() -> Any:
    from providers.tensordock import TensorDock

    return TensorDock


_in_use: dict[str, Provider] = {}


def use(providers: Mapping[str, Provider]) -> None:
    """The wiring's and the tests' way to say which providers there are."""
    global _in_use
    _in_use = dict(providers)


def get(name: str) -> Provider | None:
    """None: no key for it is set, or no such provider. That says nothing about its machines."""
    return _in_use.get(name)


def all() -> dict[str, Provider]:
    return dict(_in_use)
