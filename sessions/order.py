"""What a POST to `/sessions` may say, and the session that it asks for.

Reads the menu and the providers' traits; writes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from rest_framework import exceptions, serializers

from inventory import menu
from inventory.api import Bounds
from inventory.models import Offer
from providers import registry
from providers.base import Traits
from providers.money import micros
from rest.access import CONSUMER_NAME, CONSUMER_NAME_RULE, Principal
from rest.errors import Problem, bad_field, conflict
from rest.params import number
from sessions import ssh
from sessions.lifecycle import LIVE
from sessions.models import Session

DEFAULT_DISK_GB = 50
MAX_ENV = 64
SHORTEST_HOURS = "0.0003"  # a second; what is shorter would be over before it begins

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_IMAGE = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._/:@-]{0,1023}\Z")


class Order(Bounds):
    """A wish for a machine: `offer_id`, or `gpu_type` with any of the menu's bounds."""

    offer_id = serializers.CharField(required=False, max_length=200)
    consumer_id = serializers.CharField(required=False, max_length=100)
    workload_type = serializers.ChoiceField(Session.Workload.values, default=Session.Workload.SSH)
    storage_policy = serializers.ChoiceField(["destroy", "preserve"], default="destroy")
    launch_mode = serializers.ChoiceField(["ssh", "entrypoint"], default="ssh")
    reservation_hours = number(least=SHORTEST_HOURS, most="8760")
    ssh_public_key = serializers.CharField(required=False, max_length=16_000)
    disk_gb = serializers.IntegerField(min_value=1, max_value=100_000, default=DEFAULT_DISK_GB)
    image = serializers.RegexField(_IMAGE, required=False)
    template_hash_id = serializers.RegexField(r"\A[A-Za-z0-9]{1,64}\Z", required=False)
    onstart = serializers.CharField(required=False, max_length=16_000, trim_whitespace=False)
    env = serializers.DictField(child=serializers.CharField(allow_blank=True, max_length=8000), required=False)
    idle_threshold_minutes = number(most="720", default=0)
    auto_retry = serializers.BooleanField(required=False, help_text="Default: on with gpu_type, off with offer_id.")
    max_retries = serializers.IntegerField(min_value=0, max_value=5, default=3)
    retry_scope = serializers.ChoiceField(Session.RetryScope.values, default=Session.RetryScope.SAME_GPU)
    max_price_per_hour = number(most="10000", required=False)

    def validate_reservation_hours(self, hours: Any) -> Any:
        most = settings.HARD_MAX.total_seconds() / 3600
        if hours > most:
            raise serializers.ValidationError(f"At most {most:g} hours: no session lasts longer.")
        return hours

    def validate_storage_policy(self, policy: str) -> str:
        if policy == "preserve":
            raise serializers.ValidationError(
                "Only `destroy`: a destroyed machine keeps no storage, and a stopped one goes on billing."
            )
        return policy

    def validate_launch_mode(self, mode: str) -> str:
        if mode == "entrypoint":
            raise serializers.ValidationError("Only `ssh`: entrypoints are not offered yet.")
        return mode

    def validate_ssh_public_key(self, text: str) -> str:
        try:
            return ssh.clean_public_key(text)
        except ValueError as error:
            raise serializers.ValidationError(f"Not a public key: {error}.") from error

    def validate_env(self, env: dict[str, str]) -> dict[str, str]:
        if len(env) > MAX_ENV:
            raise serializers.ValidationError(f"At most {MAX_ENV} variables.")
        for name, value in env.items():
            if not _VARIABLE.fullmatch(name):
                raise serializers.ValidationError(f"{name[:40]!r} is not a variable's name.")
            if "\0" in value or "\n" in value:
                raise serializers.ValidationError(f"{name}: one line, without NUL.")
        return env

    def validate_consumer_id(self, name: str) -> str:
        if not CONSUMER_NAME.fullmatch(name):
            raise serializers.ValidationError(CONSUMER_NAME_RULE)
        return name

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        by_offer, by_type = "offer_id" in data, bool(data.get("gpu_type"))
        if by_offer == by_type:
            sentence = "Give either offer_id or gpu_type" + (", not both." if by_offer else ".")
            raise serializers.ValidationError({"offer_id": [sentence], "gpu_type": [sentence]})
        if by_offer and (bounds := sorted(set(data) & set(Bounds().fields) - {"gpu_type"})):
            raise serializers.ValidationError({name: ["Only with gpu_type."] for name in bounds})
        return data


def read_order(data: dict[str, Any], who: Principal, now: datetime) -> tuple[Session, str | None]:
    """The session that was asked for (not saved) and the private key made for it (None: they have one).

    Raises:
        Problem: no such offer, none that fits, or one that can't take what was asked.
    """
    consumer = _consumer(data, who)
    offer, disk_gb = _by_offer(data, now) if "offer_id" in data else _by_type(data, consumer, now)
    price = _price(offer, disk_gb)
    limit = data.get("max_price_per_hour")
    if limit is not None and price > micros(limit):
        raise bad_field("max_price_per_hour", f"{offer.pk} costs {price / 1e6:g} USD/h with {disk_gb} GB of disk.")
    private_key, public_key = None, data.get("ssh_public_key")
    if public_key is None:
        private_key, public_key = ssh.make_key_pair(f"{consumer}@gpu-shopper")
    session = Session(
        consumer=consumer, workload_type=data["workload_type"],
        provider=offer.provider, offer_id=offer.pk, gpu_type=offer.gpu_type, gpu_count=offer.gpu_count,
        vram_gb=offer.vram_gb, price=price, disk_gb=disk_gb,
        reservation=timedelta(hours=float(data["reservation_hours"])),
        image=data.get("image", ""), template_hash_id=data.get("template_hash_id", ""),
        onstart=data.get("onstart", ""), env=json.dumps(data["env"]) if data.get("env") else "",
        criteria=_criteria(data), auto_retry=data.get("auto_retry", "offer_id" not in data),
        max_retries=data["max_retries"], retry_scope=data["retry_scope"],
        max_price=None if limit is None else micros(limit),
        idle_threshold=timedelta(minutes=float(data["idle_threshold_minutes"])) or None,
        ssh_public_key=public_key, ssh_private_key=private_key or "",
    )  # fmt: skip
    return session, private_key


def _consumer(data: dict[str, Any], who: Principal) -> str:
    asked = data.get("consumer_id")
    if who.is_operator:
        if not asked:
            raise bad_field("consumer_id", "An operator has to say for whom.")
        return str(asked)
    if asked and asked != who.consumer:
        raise exceptions.PermissionDenied("Your key belongs to another consumer.")
    return who.consumer


def _by_offer(data: dict[str, Any], now: datetime) -> tuple[Offer, int]:
    offer = menu.find(data["offer_id"])
    if offer is None:
        raise Problem("not_found", "No such offer on the menu now.", status_code=404,
                      fields={"offer_id": ["No such offer on the menu now."]})  # fmt: skip
    _can_take(data, offer.provider)
    disk_gb = fitting_disk(offer, data["disk_gb"])
    if disk_gb is None:
        raise bad_field("disk_gb", f"{offer.pk} has at most {offer.disk_gb} GB.")
    return offer, disk_gb


def _by_type(data: dict[str, Any], consumer: str, now: datetime) -> tuple[Offer, int]:
    """The cheapest fitting offer, its disk counted in."""
    found = _fitting(data, consumer, now)
    if not found:
        raise conflict(
            "no_offer", f"No offer on the menu fits now: {', '.join(data['gpu_type'])} within the given bounds."
        )
    return min(found, key=lambda pair: (_price(*pair), pair[0].pk))


def _fitting(data: dict[str, Any], consumer: str, now: datetime) -> list[tuple[Offer, int]]:
    """What fits, each with the disk that will be rented, at providers that can take what is passed on.

    Raises:
        Problem: there are such offers, but at no provider that can take it.
    """
    busy = Session.objects.filter(consumer=consumer, status__in=LIVE).values_list("offer_id", flat=True)
    dearest = _dearest(data)

    def sized(passed_on: list[str]) -> Iterator[tuple[Offer, int]]:
        offers = menu.choose(
            menu.criteria(_criteria(data)), passed_on=passed_on, exclude_offers=list(busy),
            hours=float(data["reservation_hours"]), limit=200, now=now,
        )  # fmt: skip
        for offer in offers:
            disk_gb = fitting_disk(offer, data["disk_gb"])
            if disk_gb is not None and (dearest is None or _price(offer, disk_gb) <= dearest):
                yield offer, disk_gb

    if found := list(sized(_passed_on(data))):
        return found
    for offer, _ in sized([]):
        _can_take(data, offer.provider)
    return []


def _dearest(data: dict[str, Any]) -> int | None:
    """The lower of the two limits, both of which hold for the price with the disk; None: neither is given."""
    limits = [data[name] for name in ("max_price", "max_price_per_hour") if data.get(name) is not None]
    return min(map(micros, limits), default=None)


def _criteria(data: dict[str, Any]) -> dict[str, Any]:
    """The menu's bounds, as JSON, for this attempt and later ones."""
    return {
        name: value if isinstance(value, str | int | list | bool) else float(value)
        for name in map(str, Bounds().fields)
        if (value := data.get(name)) not in (None, [], "")
    }


def _passed_on(data: dict[str, Any]) -> list[str]:
    return [name for name in menu.PASSED_ON if data.get(name)]


def _can_take(data: dict[str, Any], provider: str) -> None:
    for name in _passed_on(data):
        if provider not in menu.takers([name]):
            raise bad_field(name, f"{provider} can't take it.")


def fitting_disk(offer: Offer, wanted: int) -> int | None:
    """The disk that will be rented: raised to what the provider sells; None if the offer has less."""
    adapter = registry.get(offer.provider)
    traits = adapter.traits if adapter else Traits()
    least = max(wanted, offer.min_disk_gb, traits.min_disk_gb)
    stepped = -(-least // traits.disk_step_gb) * traits.disk_step_gb
    return stepped if not offer.disk_gb or stepped <= offer.disk_gb else None


def _price(offer: Offer, disk_gb: int) -> int:
    parts = offer.price_for(disk_gb)
    return parts.total if parts else offer.price
