"""The figures for Prometheus, read from rows, so that they are right across processes and restarts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.db.models import Count, Q
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from costs import budgets, ledger
from costs.budgeting import OnLimit
from costs.models import Budget, Delivery, Endpoint
from gpushopper.models import Alarm
from providers.money import MICROS_PER_USD
from sessions.lifecycle import DESTROY_OVERDUE, OVER, Reason, State
from sessions.models import Account, Counter, Heartbeat, Instance, Session

COUNTED = {
    "orphans_detected": ("gpu_orphans_detected", "Machines of ours that nobody wanted, found in a listing."),
    "destroy_failures": ("gpu_destroy_failures", "Destroy calls without a yes."),
    "reconciliation_mismatches": (
        "gpu_reconciliation_mismatches", "Listings that showed something else than our rows.",
    ),
    "listing_failures": ("gpu_listing_failures", "Listings that were not complete."),
    "suspect_labels": ("gpu_suspect_labels", "Machines whose label resembles ours and is not signed by us."),
    "host_key_changed": ("gpu_host_key_changes", "Machines that showed another host key than the pinned one."),
}  # fmt: skip
VERIFY_BUCKETS = (5, 10, 20, 30, 60, 120, 300, 600)
VERIFY_FAILURES = (Reason.SSH_TIMEOUT, Reason.WRONG_HARDWARE)


class Figures(Collector):
    def __init__(self, now: datetime) -> None:
        self.now = now

    def collect(self) -> Iterable[Metric]:
        yield self._sessions()
        yield from self._counters()
        yield self._api_errors()
        yield from self._verification()
        yield from self._accounts()
        yield from self._ends()
        yield self._heartbeats()
        yield self._alarms()
        yield from self._money()

    def _sessions(self) -> Metric:
        family = GaugeMetricFamily(
            "gpu_sessions_active", "Sessions that are not proven over.", labels=["provider", "status"]
        )
        alive = Session.objects.exclude(status__in=OVER).order_by()
        for row in alive.values("provider", "status").annotate(count=Count("pk")):
            family.add_metric([row["provider"], row["status"]], row["count"])
        return family

    def _counters(self) -> Iterator[Metric]:
        values = {(c.name, c.label): c.value for c in Counter.objects.filter(name__in=COUNTED)}
        for name, (metric, text) in COUNTED.items():
            family = CounterMetricFamily(metric, text, labels=["provider"])
            for (counted, label), value in values.items():
                if counted == name:
                    family.add_metric([label], value)
            yield family

    def _api_errors(self) -> Metric:
        family = CounterMetricFamily(
            "gpu_provider_api_errors", "Provider calls that failed.", labels=["provider", "operation"]
        )
        for counter in Counter.objects.filter(name="provider_api_errors"):
            family.add_metric(counter.label.split("/", 1), counter.value)
        return family

    def _verification(self) -> Iterator[Metric]:
        bounds = {f"le{b}": Count("pk", filter=Q(verify_seconds__lte=b)) for b in VERIFY_BUCKETS}
        verified = Instance.objects.filter(verify_seconds__isnull=False)
        found = verified.aggregate(total=Count("pk"), **bounds)
        seconds = sum(span or 0.0 for span in verified.values_list("verify_seconds", flat=True))
        buckets = [(str(float(b)), found[f"le{b}"]) for b in VERIFY_BUCKETS] + [("+Inf", found["total"])]
        yield HistogramMetricFamily(
            "gpu_ssh_verify_duration_seconds", "From 'the machine runs' to a verified login.",
            buckets=buckets, sum_value=seconds,
        )  # fmt: skip
        failures = CounterMetricFamily(
            "gpu_ssh_verify_failures", "Machines that never became usable over SSH.", labels=["provider"]
        )
        rows = Instance.objects.filter(end_reason__in=VERIFY_FAILURES).order_by()
        for row in rows.values("provider").annotate(count=Count("pk")):
            failures.add_metric([row["provider"]], row["count"])
        yield failures

    def _accounts(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "gpu_last_complete_listing_age_seconds", "How old our sight of the account is.", labels=["provider"]
        )
        brakes = GaugeMetricFamily(
            "gpu_brake_applied", "Creates stopped until an operator decides.", labels=["provider"]
        )
        rejected = GaugeMetricFamily("gpu_credentials_rejected", "The provider rejects our key.", labels=["provider"])
        for account in Account.objects.all():
            if account.looked_at:
                age.add_metric([account.provider], (self.now - account.looked_at).total_seconds())
            brakes.add_metric([account.provider], float(bool(account.brake)))
            rejected.add_metric([account.provider], float(account.unauthorized))
        yield from (age, brakes, rejected)

    def _ends(self) -> Iterator[Metric]:
        unresolved = Q(machine_id="", launched_at__isnull=False, refused_at=None) & ~Q(state=State.DESTROYED)
        yield self._per_provider("gpu_unresolved_creates", "Creates without a clear outcome.", unresolved)
        overdue = Q(state=State.DESTROYING, state_since__lt=self.now - DESTROY_OVERDUE)
        yield self._per_provider("gpu_destroys_overdue", "Destructions that take more than 10 minutes.", overdue)
        late = Q(deadline__lt=self.now) & ~Q(state=State.DESTROYED) & ~Q(machine_id="")
        yield self._per_provider("gpu_machines_past_deadline", "Machines that outlive their deadline.", late)
        yield self._orphan_seconds()

    def _per_provider(self, name: str, text: str, which: Q) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["provider"])
        counts = dict(Instance.objects.filter(which).order_by().values_list("provider").annotate(count=Count("pk")))
        for provider in {*counts, *Account.objects.values_list("provider", flat=True)}:
            family.add_metric([provider], counts.get(provider, 0))
        return family

    def _orphan_seconds(self) -> Metric:
        """How long machines lived that nobody wanted: from their discovery to the proof of their end."""
        family = CounterMetricFamily(
            "gpu_orphan_seconds", "Seconds that unwanted machines existed after we found them.", labels=["provider"]
        )
        spans: dict[str, timedelta] = {}
        unwanted = Instance.objects.filter(adopted_at__isnull=False)
        for provider, adopted_at, ended_at in unwanted.values_list("provider", "adopted_at", "ended_at"):
            if adopted_at is not None:
                spans[provider] = spans.get(provider, timedelta(0)) + ((ended_at or self.now) - adopted_at)
        for provider, span in spans.items():
            family.add_metric([provider], span.total_seconds())
        return family

    def _heartbeats(self) -> Metric:
        family = GaugeMetricFamily("gpu_heartbeat_age_seconds", "Since an engine's last round.", labels=["engine"])
        for beat in Heartbeat.objects.all():
            family.add_metric([beat.name], (self.now - beat.at).total_seconds())
        return family

    def _alarms(self) -> Metric:
        family = GaugeMetricFamily("gpu_alarms_standing", "What needs a person now.", labels=["alarm"])
        standing = Alarm.objects.filter(over_at=None).order_by()
        for name, count in standing.values_list("name").annotate(count=Count("pk")):
            family.add_metric([name], count)
        return family

    def _money(self) -> Iterator[Metric]:
        """Without names: whoever may read the figures need not know who spends how much."""
        burn = GaugeMetricFamily("gpu_burn_usd_per_hour", "What all machines cost now.", labels=["provider"])
        for provider, rate in ledger.burn_by("provider").items():
            burn.add_metric([provider], rate / MICROS_PER_USD)
        used_up = GaugeMetricFamily("gpu_budgets_used_up", "Budgets whose limit is spent.", labels=["on_limit"])
        looks = budgets.outlooks(list(Budget.objects.all()), self.now)
        for on_limit in OnLimit:
            mine = [look for look in looks if look.budget.on_limit == on_limit]
            used_up.add_metric([on_limit], sum(look.standing.is_used_up for look in mine))
        waiting = GaugeMetricFamily("gpu_webhook_deliveries_waiting", "Messages that no endpoint has taken yet.")
        waiting.add_metric([], Delivery.objects.filter(delivered_at=None, gave_up_at=None).count())
        given_up = GaugeMetricFamily("gpu_webhook_deliveries_given_up", "Of the last month, that no endpoint took.")
        given_up.add_metric([], Delivery.objects.filter(gave_up_at__isnull=False).count())
        disabled = GaugeMetricFamily("gpu_webhook_endpoints_disabled", "Endpoints that are not told any more.")
        disabled.add_metric([], Endpoint.objects.filter(disabled_at__isnull=False).count())
        yield from (burn, used_up, waiting, given_up, disabled)
