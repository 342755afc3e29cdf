"""What is kept: sessions (wishes), instances (machines that may cost money), accounts, strangers, events.

Rows are the queue: `due_at` says when a row wants to be looked at, `revision` guards every write that
decides something. `sessions.controller` is the only writer of `Session`, `Instance` and `Event`; rows of
instances and events are never deleted, so a tag is known for ever.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.models import Q

from providers import clock
from providers.base import MachineState
from sessions.lifecycle import LIVE, OVER, Reason, State, Status
from sessions.sealed import SealedField


def _choices(enum: Any) -> list[tuple[str, str]]:
    return [(member.value, member.value.replace("_", " ")) for member in enum]


# Never in an answer to a consumer: it may be anything, a name or a key of somebody else's among it.
SAID = "What the provider said, in its own words; for operators only."


class Due(models.Model):
    """A row that is worked on: claimed by one conditional UPDATE, fenced by its revision."""

    due_at = models.DateTimeField(null=True, blank=True, db_index=True)  # None: nothing to do
    revision = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class Session(Due):
    class Workload(models.TextChoices):
        LLM = "llm"
        LLM_VLLM = "llm_vllm"
        LLM_TGI = "llm_tgi"
        TRAINING = "training"
        BATCH = "batch"
        INTERACTIVE = "interactive"
        INFERENCE = "inference"
        BENCHMARK = "benchmark"
        SSH = "ssh"

    class RetryScope(models.TextChoices):
        SAME_GPU = "same_gpu"
        SAME_VRAM = "same_vram"
        ANY = "any"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    consumer = models.CharField(max_length=100, db_index=True)
    workload_type = models.CharField(max_length=20, choices=Workload.choices, default=Workload.SSH)

    # What is wished for. The offer is that of the latest attempt.
    provider = models.CharField(max_length=40)
    offer_id = models.CharField(max_length=200)
    gpu_type = models.CharField(max_length=60)
    gpu_count = models.PositiveIntegerField()
    vram_gb = models.PositiveIntegerField()
    price = models.BigIntegerField(help_text="Micro-dollars per hour.")
    disk_gb = models.PositiveIntegerField()
    reservation = models.DurationField()
    image = models.CharField(max_length=1024, blank=True)
    template_hash_id = models.CharField(max_length=64, blank=True)
    onstart = SealedField(blank=True)
    env = SealedField(blank=True, help_text="A JSON object; often with secrets in it.")
    criteria = models.JSONField(default=dict, blank=True, help_text="The menu's bounds, for later attempts.")
    auto_retry = models.BooleanField(default=False)
    max_retries = models.PositiveSmallIntegerField(default=3)
    retry_scope = models.CharField(max_length=10, choices=RetryScope.choices, default=RetryScope.SAME_GPU)
    max_price = models.BigIntegerField(null=True, blank=True, help_text="Micro-dollars per hour.")
    idle_threshold = models.DurationField(null=True, blank=True)

    # Access.
    ssh_public_key = models.TextField()
    ssh_private_key = SealedField(blank=True)
    ssh_key_until = models.DateTimeField(null=True, blank=True)

    # How far it has come.
    status = models.CharField(max_length=12, choices=_choices(Status), default=Status.PENDING)
    waiting_for = models.CharField(max_length=300, blank=True, help_text="Why nothing happens just now.")
    end_reason = models.CharField(max_length=20, choices=_choices(Reason), blank=True)
    end_note = models.CharField(max_length=500, blank=True)
    end_said = models.CharField(max_length=500, blank=True, help_text=SAID)
    created_at = models.DateTimeField(default=clock.now, db_index=True)
    started_at = models.DateTimeField(null=True, blank=True)
    running_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    hard_deadline = models.DateTimeField(null=True, blank=True)
    wished_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["consumer", "status"]),
            models.Index(fields=["status", "-created_at"]),
        ]
        constraints = [
            # The same wish twice is a mistake, also when two requests race.
            models.UniqueConstraint(
                fields=["consumer", "offer_id"],
                condition=Q(status__in=LIVE),
                name="one_live_session_per_offer",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.status})"

    @property
    def is_over(self) -> bool:
        return self.status in OVER


class Instance(Due):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(Session, null=True, blank=True, on_delete=models.PROTECT, related_name="instances")
    provider = models.CharField(max_length=40)
    account = models.CharField(max_length=100, blank=True, help_text="The provider's id of the account.")
    tag = models.CharField(max_length=60, db_index=True)
    adopted_at = models.DateTimeField(null=True, blank=True, help_text="Found in a listing, without a row.")

    # What was offered.
    offer_id = models.CharField(max_length=200, blank=True)
    quote_id = models.CharField(max_length=200, blank=True)
    provider_gpu_name = models.CharField(max_length=100, blank=True)
    gpu_type = models.CharField(max_length=60, blank=True)
    gpu_count = models.PositiveIntegerField(default=0)
    vram_gb = models.PositiveIntegerField(default=0)
    cuda_version = models.CharField(max_length=10, blank=True)
    cpu_cores = models.PositiveIntegerField(default=0)
    ram_gb = models.PositiveIntegerField(default=0)
    disk_gb = models.PositiveIntegerField(default=0)
    host = models.CharField(max_length=100, blank=True)
    price = models.BigIntegerField(default=0, help_text="Micro-dollars per hour, as offered.")
    price_parts = models.JSONField(default=dict, blank=True)
    max_price = models.BigIntegerField(null=True, blank=True, help_text="Micro-dollars per hour; dearer is not wanted.")

    state = models.CharField(max_length=12, choices=_choices(State), default=State.LAUNCHING)
    state_since = models.DateTimeField(default=clock.now)
    end_reason = models.CharField(max_length=20, choices=_choices(Reason), blank=True)
    end_note = models.CharField(max_length=500, blank=True)
    end_said = models.CharField(max_length=500, blank=True, help_text=SAID)
    created_at = models.DateTimeField(default=clock.now)
    deadline = models.DateTimeField()
    hard_deadline = models.DateTimeField()

    # Facts (see sessions.lifecycle). Written by anybody who learns them, however late.
    machine_id = models.CharField(max_length=100, blank=True, db_index=True)
    launched_at = models.DateTimeField(null=True, blank=True)
    refused_at = models.DateTimeField(null=True, blank=True)
    looked_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)
    asked_at = models.DateTimeField(null=True, blank=True)
    denied_at = models.DateTimeField(null=True, blank=True)
    misses = models.PositiveIntegerField(default=0)
    missed_at = models.DateTimeField(null=True, blank=True, help_text="First missed by the latest listings.")
    asks = models.PositiveIntegerField(default=0)
    machine_state = models.CharField(max_length=10, choices=_choices(MachineState), blank=True)
    machine_status = models.CharField(max_length=300, blank=True, help_text=SAID)
    interruptible = models.BooleanField(null=True, blank=True, help_text="As the provider says; empty: not told.")
    label_seen = models.CharField(max_length=300, null=True, blank=True)  # noqa: DJ001 - None: not told
    useless_looks = models.PositiveIntegerField(default=0)
    useless_since = models.DateTimeField(null=True, blank=True)
    up_since = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True, help_text="Proven gone.")

    # Access and what SSH showed.
    ssh_targets = models.JSONField(default=list, blank=True)
    ssh_host = models.CharField(max_length=255, blank=True)
    ssh_port = models.PositiveIntegerField(default=0)
    ssh_user = models.CharField(max_length=40, blank=True)
    host_key = models.TextField(blank=True, help_text="Pinned at the first verified login.")
    our_key = SealedField(blank=True, help_text="Private; erased when the instance is proven gone.")
    our_public_key = models.TextField(blank=True)
    keyed_at = models.DateTimeField(null=True, blank=True, help_text="The keys were sent to the provider.")
    denied_login_at = models.DateTimeField(null=True, blank=True)
    probed_at = models.DateTimeField(null=True, blank=True)
    probe_note = models.CharField(max_length=300, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True)
    verify_seconds = models.FloatField(null=True, blank=True)
    hardware = models.JSONField(default=dict, blank=True)
    inspected_at = models.DateTimeField(null=True, blank=True)
    idle_since = models.DateTimeField(null=True, blank=True)
    dead_man_deadline = models.DateTimeField(null=True, blank=True, help_text="As read back from it.")
    dead_man_read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at", "id"]
        indexes = [models.Index(fields=["provider", "state"])]
        constraints = [
            # One create for one tag. A second machine that bears it was found, not asked for.
            models.UniqueConstraint(fields=["tag"], condition=Q(adopted_at__isnull=True), name="one_create_per_tag"),
            models.UniqueConstraint(
                fields=["provider", "account", "machine_id"],
                # Of machines that may exist: an id that comes back after its end must not keep a row from learning it.
                condition=~Q(machine_id="") & ~Q(state="destroyed"),
                name="one_row_per_machine",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.machine_id or self.tag} ({self.state})"


class Account(Due):
    """One provider account: what its listings have told us, and whether we may create there."""

    provider = models.CharField(max_length=40, primary_key=True)
    account = models.CharField(max_length=100, blank=True, help_text="The provider's id of the account.")
    identified_at = models.DateTimeField(null=True, blank=True, help_text="`account` was read then.")
    looked_at = models.DateTimeField(null=True, blank=True, help_text="The last complete listing began.")
    listed = models.PositiveIntegerField(default=0, help_text="Machines in it, foreign ones included.")
    tried_at = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True, help_text=SAID)
    unauthorized = models.BooleanField(default=False)
    brake = models.CharField(max_length=300, blank=True, help_text="Creates stop until an operator decides.")
    balance = models.BigIntegerField(null=True, blank=True, help_text="Micro-dollars.")

    def __str__(self) -> str:
        return self.provider


class Stranger(models.Model):
    """A machine in a listing that no row of ours stands for. Never touched for being here."""

    provider = models.CharField(max_length=40)
    machine_id = models.CharField(max_length=100)
    label = models.CharField(max_length=300, blank=True)
    ownership = models.CharField(max_length=10)
    status = models.CharField(max_length=300, blank=True)
    first_seen_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["provider", "first_seen_at"]
        constraints = [models.UniqueConstraint(fields=["provider", "machine_id"], name="one_stranger_row")]

    def __str__(self) -> str:
        return f"{self.provider} {self.machine_id}"


class Event(models.Model):
    """One line of a timeline. Written in the transaction of the move that it tells of; never changed."""

    at = models.DateTimeField(db_index=True)
    session = models.ForeignKey(Session, null=True, on_delete=models.PROTECT, related_name="events")
    instance = models.ForeignKey(Instance, null=True, on_delete=models.PROTECT, related_name="events")
    kind = models.CharField(max_length=40, db_index=True)
    actor = models.CharField(max_length=100, blank=True, help_text="Who wished it; empty: the service.")
    message = models.CharField(max_length=500)
    said = models.CharField(max_length=500, blank=True, help_text=SAID)
    data = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.kind}"


class Reply(models.Model):
    """The first answer to a POST with an `Idempotency-Key`, kept for 24 hours."""

    consumer = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    body_digest = models.CharField(max_length=64)
    status_code = models.PositiveSmallIntegerField(default=0, help_text="0: still being worked out.")
    body = SealedField(blank=True, help_text="It carries a private key.")
    created_at = models.DateTimeField(default=clock.now, db_index=True)

    class Meta:
        verbose_name_plural = "replies"
        constraints = [models.UniqueConstraint(fields=["consumer", "key"], name="one_reply_per_key")]

    def __str__(self) -> str:
        return f"{self.consumer} {self.key}"


class Heartbeat(models.Model):
    """When an engine last did its round; what `/health` and the auditor look at."""

    name = models.CharField(max_length=40, primary_key=True)
    at = models.DateTimeField()
    note = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return self.name


class Counter(models.Model):
    """A figure that has to be right across processes and restarts."""

    name = models.CharField(max_length=60)
    label = models.CharField(max_length=100, blank=True)
    value = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "label"], name="one_counter")]

    def __str__(self) -> str:
        return f"{self.name} {self.label}"
