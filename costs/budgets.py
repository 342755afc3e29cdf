"""Budgets at work: what is spent and reserved, what is refused, who is told, what is ended.

A reservation is not stored but follows from the sessions that are not over: the worst case of each, less
what it has cost. So nothing can leak, and a session that is reopened counts again by itself.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from costs import budgeting, forecast, ledger, mails, webhooks
from costs.budgeting import HARD, WHOLE, Commitment, OnLimit, Period, Standing
from costs.models import Alert, Budget
from providers import clock
from providers.money import written
from rest.errors import Problem, conflict
from sessions import controller, outlets, rows, shapes
from sessions.lifecycle import LIVE, OVER, Reason, Status
from sessions.models import Session

log = logging.getLogger(__name__)

# Shorter than the 15 s in which beat and the guardian ask, so that none of them comes a moment too early. An
# overshoot of `stop` is at most the rate times those 15 s and the time of the destruction.
WATCH_EVERY = timedelta(seconds=10)

# A machine whose create was never answered is found by its label up to 15 minutes later, and billed from the create
# on: for so long the money of yesterday may still become more.
KNOWN_LATE = timedelta(minutes=20)


def _everybody(name: str) -> bool:
    return True


# Whether there is such a consumer: the app above knows them.
is_consumer: Callable[[str], bool] = _everybody


def connect(known: Callable[[str], bool]) -> None:
    global is_consumer
    is_consumer = known
    if reserve not in outlets.before_commitment:
        outlets.before_commitment.append(reserve)
    outlets.no_second_machine = no_second_machine
    if watch not in outlets.each_round:
        outlets.each_round.append(watch)


# --- Where a budget stands ------------------------------------------------------------------------------------


def commitments(sessions: Sequence[Session], now: datetime) -> list[Commitment]:
    keys = [session.pk for session in sessions]
    costs, burns = outlets.costs_of(keys, now), forecast.rates(keys)
    return [_commitment(session, costs.get(session.pk, 0), burns.get(session.pk, 0), now) for session in sessions]


def _commitment(session: Session, cost: int, burns: int, now: datetime) -> Commitment:
    rate = budgeting.dearest(session.price, session.max_price, may_retry=_may_retry(session))
    began = session.started_at or now
    return Commitment(budgeting.worst_now(rate, burns, cost, began, session.reservation, now), cost)


def _may_retry(session: Session) -> bool:
    goes_on = session.auto_retry and session.max_retries > 0
    return goes_on and session.status in (Status.PENDING, Status.PROVISIONING)


def not_over(consumer: str) -> list[Session]:
    return list(Session.objects.filter(consumer=consumer).exclude(status__in=OVER))


def standing(budget: Budget, sessions: Sequence[Session], now: datetime) -> Standing:
    """Where it stands, with the consumer's `sessions` that are not over.

    They are counted first: what one of them costs meanwhile is then counted twice rather than not at all.
    """
    committed = commitments(sessions, now)
    start, end = budgeting.window(Period(budget.period), now)
    return budgeting.standing(budget.limit, ledger.spent(budget.consumer, start, end, now), committed)


def notice(budget: Budget, room: Standing) -> str:
    """What it does right now; "" while there is room."""
    if room.remaining > 0:
        return ""
    used = f"{written(room.spent)} of {written(room.limit)} USD are spent"
    if room.reserved:
        used += f", {written(room.reserved)} reserved"
    return f"{used}. {_NOTICES[OnLimit(budget.on_limit)][room.is_used_up]}"


# Of each kind: while only reservations fill it, and when it is used up.
_NOTICES = {
    OnLimit.ALERT: ("It will be passed if all that is reserved is used.", "Nothing is refused because of it."),
    OnLimit.BLOCK: ("Nothing new fits.", "Nothing new fits; what runs goes on until its deadline."),
    OnLimit.STOP: ("Nothing new fits.", "Nothing new fits, and what runs is ended."),
}


def write(budget: Budget, now: datetime) -> None:
    """Record a new budget, or what a person has changed of one. It counts from now on."""
    if budget._state.adding:
        budget.watched_at = now
        budget.save(force_insert=True)
        return
    Budget.objects.filter(pk=budget.pk).update(
        period=budget.period, limit=budget.limit, thresholds=budget.thresholds, on_limit=budget.on_limit,
        by_operator=budget.by_operator, watched_at=now, due_at=now, revision=F("revision") + 1,
    )  # fmt: skip


def stands(budget: Budget) -> Standing:
    """Where it stands now; for pages that show one at a time."""
    return standing(budget, not_over(budget.consumer), clock.now())


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a budget stands, and what will be spent of it when each live session runs until its deadline.

    Nothing is foretold beyond the end of the period. `notice` is what the budget does right now.
    """

    budget: Budget
    standing: Standing
    forecast: int
    notice: str


def outlooks(page: Sequence[Budget], now: datetime) -> list[Outlook]:
    """Where each of these stands, with as many queries for a hundred of them as for one."""
    alive: defaultdict[str, list[Session]] = defaultdict(list)
    for session in Session.objects.filter(consumer__in={budget.consumer for budget in page}).exclude(status__in=OVER):
        alive[session.consumer].append(session)
    everybody = [session for sessions in alive.values() for session in sessions]
    committed = dict(zip((session.pk for session in everybody), commitments(everybody, now), strict=True))
    windows = {Period(budget.period): budgeting.window(Period(budget.period), now) for budget in page}
    spent = {period: ledger.cost_by("consumer", *window, now) for period, window in windows.items()}
    live = [session for session in everybody if session.status in LIVE]
    to_come = {period: forecast.ahead(live, end, now) for period, (_, end) in windows.items()}
    found = []
    for budget in page:
        period, sessions = Period(budget.period), alive[budget.consumer]
        room = budgeting.standing(
            budget.limit, spent[period].get(budget.consumer, 0), (committed[session.pk] for session in sessions)
        )
        ahead = sum(to_come[period].get(session.pk, 0) for session in sessions)
        found.append(Outlook(budget, room, room.spent + ahead, notice(budget, room)))
    return found


# --- Before a commitment ----------------------------------------------------------------------------------------


def reserve(session: Session, now: datetime) -> None:
    """Refuse a wish, or its extension, whose worst case does not fit into each hard budget.

    Called inside the transaction that records the wish. The budgets' rows are locked until it ends (SQLite
    has one writer anyway), so of two wishes that would fit only one by one, the second sees the first.

    Raises:
        Problem: it does not fit.
    """
    hard = Budget.objects.select_for_update().filter(consumer=session.consumer, on_limit__in=HARD).order_by("pk")
    budgets = list(hard)
    if not budgets:
        return
    if session._state.adding:
        # Without one, a retry could take an offer at any price, and no reservation would cover it.
        session.max_price = budgeting.upper_price(session.price, session.max_price, may_retry=_may_retry(session))
    others = [other for other in not_over(session.consumer) if other.pk != session.pk]
    [asked] = commitments([session], now)
    for budget in budgets:
        room = standing(budget, others, now)
        if not room.fits(asked.reserved):
            raise _refusal(budget, room, session, asked.reserved)


def _refusal(budget: Budget, room: Standing, session: Session, asked: int) -> Problem:
    hours = shapes.hours(session.reservation)
    return conflict(
        "budget_exceeded",
        f"This needs up to {written(asked)} USD ({hours:g} h and what its end may take), and the "
        f"{budget.period} budget of {written(budget.limit)} USD has {written(max(0, room.remaining))} USD left: "
        f"{written(room.spent)} are spent, {written(room.reserved)} reserved for what runs.",
    )


def no_second_machine(session: Session) -> str:
    """What is reserved is for one machine at a time; two would bill while the first is on its way out."""
    if Budget.objects.filter(consumer=session.consumer, on_limit__in=HARD).exists():
        return "a budget holds for one machine at a time, and the end of the last one is not proven yet"
    return ""


# --- Watching -----------------------------------------------------------------------------------------------------


def watch(now: datetime) -> None:
    """Look at every budget that is due for it: end what has to end, tell of what was crossed."""
    for budget in rows.due(Budget, now):
        try:
            look(budget, now)
        except Exception:  # Whatever it is: the others are looked at, and this one again when its lease ends.
            log.exception("budget %s could not be looked at; it is again in %d s.", budget.pk, rows.LEASE.seconds)


def look(due: Budget, now: datetime) -> None:
    budget = rows.claim(Budget, due.pk, now)
    if budget is None:
        return
    start, end = budgeting.window(Period(budget.period), now)
    spent = ledger.spent(budget.consumer, start, end, now)
    if budget.on_limit == OnLimit.STOP and spent >= budget.limit:
        _stop(budget, now)
    with transaction.atomic():
        # A crossing shortly before midnight is found after it: each period since the last look is compared.
        for since, until in budgeting.windows(Period(budget.period), budget.watched_at, now):
            of_period = spent if since == start else ledger.spent(budget.consumer, since, until, now)
            for threshold in budgeting.crossed(budget.thresholds, budget.limit, of_period):
                _alert(budget, since, threshold, of_period, now)
        rows.write(budget, watched_at=max(budget.watched_at, now - KNOWN_LATE), due_at=now + WATCH_EVERY)


def _stop(budget: Budget, now: datetime) -> None:
    note = f"the {budget.period} budget of {written(budget.limit)} USD is used up"
    for session in Session.objects.filter(consumer=budget.consumer, status__in=LIVE):
        try:
            controller.wish_end(session.pk, Reason.BUDGET, now, actor="budget", note=note)
        except Exception:  # Whatever it is: the others are ended, people are told, and it is tried again.
            log.exception("session %s could not be ended for budget %s.", session.pk, budget.pk)


def _alert(budget: Budget, period_start: datetime, threshold: int, spent: int, now: datetime) -> None:
    """Tell of a crossing, once: the row and what is to be sent are written together."""
    alert, is_new = Alert.objects.get_or_create(
        budget=budget, period=budget.period, period_start=period_start, threshold=threshold, limit=budget.limit,
        defaults={"spent": spent, "at": now},
    )  # fmt: skip
    if not is_new:
        return
    kind = "budget.exceeded" if threshold >= WHOLE else "budget.threshold"
    webhooks.emit(kind, alert_json(alert), now, consumer=budget.consumer, budget=budget)
    subject = f"{budget.consumer}: {threshold / 100:g} % of the {budget.period} budget are spent"
    mails.queue(alert, subject, _letter(alert), now)
    log.warning("budget %s: %s (%s of %s USD).", budget.pk, subject, written(spent), written(budget.limit))


def alert_json(alert: Alert) -> dict[str, object]:
    budget = alert.budget
    return {
        "budget_id": str(budget.pk),
        "consumer_id": budget.consumer,
        "period": budget.period,
        "period_start": None if budget.period == Period.TOTAL else shapes.instant(alert.period_start),
        "threshold": alert.threshold / WHOLE,
        "limit_usd": shapes.money(alert.limit),
        "spent": shapes.money(alert.spent),
        "on_limit": budget.on_limit,
    }


_WHAT_FOLLOWS = {
    OnLimit.ALERT: "Nothing is refused or ended because of it.",
    OnLimit.BLOCK: "New sessions and extensions that would not fit are refused; what runs goes on.",
    OnLimit.STOP: "New sessions that would not fit are refused; at the limit what runs is ended.",
}


def _letter(alert: Alert) -> str:
    budget = alert.budget
    return (
        f"{budget.consumer} has spent {written(alert.spent)} USD of the {budget.period} budget of "
        f"{written(alert.limit)} USD, as of {alert.at:%Y-%m-%d %H:%M} UTC.\n\n"
        f"{_WHAT_FOLLOWS[OnLimit(budget.on_limit)]}\n"
    )
