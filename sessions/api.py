"""The API's doors to sessions: check what was sent, call the controller, answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from providers import clock
from rest import waiting
from rest.access import consumer_filter, principal
from rest.doors import NO_STORE, Door
from rest.errors import Problem, bad_field, conflict, not_found
from rest.params import Paged, Strict, check_body, number
from sessions import controller, replies, shapes
from sessions.lifecycle import LIVE, OVER, Reason, Status
from sessions.models import Event, Reply, Session
from sessions.order import SHORTEST_HOURS, Order, read_order
from sessions.rows import tell

KEY_KEPT = timedelta(hours=24)
SETTLED = (Status.RUNNING, *OVER)

PREFER = OpenApiParameter(
    "Prefer", str, OpenApiParameter.HEADER,
    description="`wait=N`: answer when it has settled or N seconds (at most 120) are over.",
)  # fmt: skip
IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER,
    description="1 to 255 visible ASCII characters; the same key and body get the first answer again, for 24 h. "
    "A refused wish keeps no answer: mend it and send it with the same key.",
)  # fmt: skip


class SessionQuery(Paged):
    consumer_id = serializers.CharField(required=False, max_length=100)
    status = serializers.ListField(child=serializers.ChoiceField([status.value for status in Status]), required=False)
    provider = serializers.CharField(required=False, max_length=40)


class Extension(Strict):
    additional_hours = number(least=SHORTEST_HOURS, most="8760")
    override = serializers.BooleanField(default=False, help_text="Operators only: beyond the hard maximum.")
    reason = serializers.CharField(required=False, max_length=300, help_text="Needed with `override`; only with it.")


def visible(request: Request) -> QuerySet[Session]:
    """The sessions that the caller may see. Somebody else's do not exist for it."""
    who = principal(request)
    sessions = Session.objects.prefetch_related("instances")
    return sessions if who.is_operator else sessions.filter(consumer=who.consumer)


def find(request: Request, pk: UUID) -> Session:
    session = visible(request).filter(pk=pk).first()
    if session is None:
        raise not_found("session")
    return session


def shown_to(request: Request, session: Session) -> dict[str, Any]:
    return shapes.session_json(session, to_operator=principal(request).is_operator)


def actor(request: Request) -> str:
    return str(principal(request))


class Sessions(Door):
    queries = {"GET": SessionQuery}
    bodies = ("POST",)

    @extend_schema(parameters=[SessionQuery], responses=shapes.SessionPage)
    def get(self, request: Request) -> Response:
        """One's own sessions (an operator: everybody's), newest first."""
        query = self.query
        sessions = visible(request)
        if (consumer := consumer_filter(request, query.get("consumer_id"))) is not None:
            sessions = sessions.filter(consumer=consumer)
        if query.get("status"):
            sessions = sessions.filter(status__in=query["status"])
        if query.get("provider"):
            sessions = sessions.filter(provider=query["provider"])
        page = list(sessions[query["offset"] : query["offset"] + query["limit"]])
        shown = shapes.sessions_json(page, clock.now(), to_operator=principal(request).is_operator)
        return Response({"sessions": shown, "count": len(shown), "total": sessions.count()})

    @extend_schema(parameters=[PREFER, IDEMPOTENCY], request=Order, responses={201: shapes.NewSession})
    def post(self, request: Request) -> Response:
        """Rent a machine: by `offer_id`, or by `gpu_type` with any of the menu's bounds.

        Recorded and answered at once; a worker asks the provider. The private key is in this answer, and
        for 24 hours at `/sessions/{id}/ssh-key` until it is acknowledged.
        """
        data = check_body(Order, request)
        key = replies.key_of(request)
        with transaction.atomic():
            kept = replies.claim(key, actor(request), request.data) if key else None
            if kept is not None and kept.status_code:
                answer = _again(request, kept)
            else:
                session, private_key = self._begin(request, data)
                answer = {"session": shapes.session_json(session), "ssh_private_key": private_key}
                if kept is not None:
                    replies.keep(kept, 201, answer)
        return _settled(request, answer, kept)

    def _begin(self, request: Request, data: dict[str, Any]) -> tuple[Session, str | None]:
        now = clock.now()
        session, private_key = read_order(data, principal(request), now)
        session.ssh_key_until = now + KEY_KEPT if private_key else None
        try:
            with transaction.atomic():
                controller.begin(session, now, actor=actor(request))
        except IntegrityError as error:
            if not Session.objects.filter(
                consumer=session.consumer, offer_id=session.offer_id, status__in=LIVE
            ).exists():
                raise
            raise conflict(
                "duplicate_session", f"{session.consumer} has a live session on {session.offer_id} already."
            ) from error
        return session, private_key


def _created(answer: dict[str, Any]) -> Response:
    location = f"/api/v1/sessions/{answer['session']['id']}"
    return Response(answer, status=201, headers={"Location": location, **NO_STORE})


def _settled(request: Request, answer: dict[str, Any], kept: Reply | None) -> Response:
    """Waits as preferred. What has settled once is given again as it is, with the same Idempotency-Key."""
    seconds = waiting.wanted(request)
    if seconds and answer["session"]["status"] not in SETTLED:
        answer["session"], seconds = settle(request, answer["session"]["id"], SETTLED)
        if seconds and kept is not None:
            replies.keep_settled(kept, answer["session"])
    return waiting.applied(_created(answer), seconds)


def _again(request: Request, kept: Reply) -> dict[str, Any]:
    """The first answer to this Idempotency-Key; a private key in it is read once more, and that is told."""
    answer: dict[str, Any] = replies.body_of(kept)
    if answer["ssh_private_key"]:
        session = Session.objects.get(pk=answer["session"]["id"])
        tell("ssh_key_read", "The private key was given again, for its Idempotency-Key.", clock.now(),
             session=session, actor=actor(request))  # fmt: skip
    return answer


def settle(request: Request, pk: UUID | str, wanted: tuple[Status, ...]) -> tuple[dict[str, Any], int]:
    """What the session looks like when it has one of the wanted statuses, or the wait that was preferred is over.

    And the seconds that were waited at most; 0: none.
    """
    seconds = waiting.wanted(request)

    def settled() -> bool:
        return Session.objects.filter(pk=pk, status__in=wanted).exists()

    waited = waiting.until(settled, seconds)
    return shown_to(request, Session.objects.prefetch_related("instances").get(pk=pk)), seconds if waited else 0


class OneSession(Door):
    @extend_schema(responses=shapes.SessionShape)
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(shown_to(request, find(request, pk)))

    @extend_schema(parameters=[PREFER], responses={202: shapes.SessionAnswer})
    def delete(self, request: Request, pk: UUID) -> Response:
        """End it now. Said twice it is no error."""
        session = find(request, pk)
        controller.wish_end(session.pk, Reason.DELETED, clock.now(), actor=actor(request))
        return ending(request, session)


def ending(request: Request, session: Session) -> Response:
    shown, seconds = settle(request, session.pk, OVER)
    return waiting.applied(Response({"session": shown}, status=202), seconds)


class Done(Door):
    @extend_schema(parameters=[PREFER], request=None, responses={202: shapes.SessionAnswer})
    def post(self, request: Request, pk: UUID) -> Response:
        """The work is done: the machine is destroyed, and the bill ends."""
        session = find(request, pk)
        if session.is_over:
            raise conflict("already_ended", f"This session has {session.status} already.")
        controller.wish_end(session.pk, Reason.RELEASED, clock.now(), actor=actor(request))
        return ending(request, session)


class Extend(Door):
    bodies = ("POST",)

    @extend_schema(request=Extension, responses=shapes.Extended)
    def post(self, request: Request, pk: UUID) -> Response:
        """Move the deadline, up to the hard maximum."""
        session = find(request, pk)
        data = check_body(Extension, request)
        override = self._override(request, data)
        additional = timedelta(hours=float(data["additional_hours"]))
        try:
            extended = controller.extend(
                session.pk, additional, clock.now(), actor=actor(request), override_reason=override
            )
        except controller.OverHardMaximum as error:
            raise over_hard_maximum(session) from error
        if extended is None:
            raise conflict("not_live", f"Only a live session can be extended; this one is {session.status}.")
        shown = shown_to(request, Session.objects.prefetch_related("instances").get(pk=pk))
        return Response({"session": shown, "new_expires_at": shown["expires_at"]})

    def _override(self, request: Request, data: dict[str, Any]) -> str:
        if not data["override"]:
            if "reason" in data:
                raise bad_field("reason", "Only with override.")
            return ""
        if not principal(request).is_operator:
            raise exceptions.PermissionDenied("Only an operator can go beyond the hard maximum.")
        if not data.get("reason"):
            raise bad_field("reason", "An override is recorded with its reason.")
        return str(data["reason"])


def over_hard_maximum(session: Session) -> Problem:
    most, has = shapes.hours(settings.HARD_MAX), shapes.hours(session.reservation)
    return bad_field(
        "additional_hours",
        f"No session lasts longer than {most:g} h; this one has {has:g} h, so at most {max(0, most - has):g} h fit.",
        error_type="hard_max",
    )


class Events(Door):
    queries = {"GET": Paged}

    @extend_schema(parameters=[Paged], responses=shapes.EventPage)
    def get(self, request: Request, pk: UUID) -> Response:
        """The timeline, oldest first."""
        query = self.query
        events = Event.objects.filter(session=find(request, pk))
        page = events[query["offset"] : query["offset"] + query["limit"]]
        shown = [shapes.event_json(event, to_operator=principal(request).is_operator) for event in page]
        return Response({"events": shown, "count": len(shown), "total": events.count()})


class DiagnosticsView(Door):
    @extend_schema(responses=shapes.Diagnostics)
    def get(self, request: Request, pk: UUID) -> Response:
        """How a running session is doing, and which safeguards are armed."""
        session = find(request, pk)
        row = shapes.usable(session, list(session.instances.all()))
        if row is None:
            raise conflict("not_running", f"There are diagnostics of a running session; this one is {session.status}.")
        return Response(shapes.diagnostics(session, row, clock.now()))


class SshKey(Door):
    @extend_schema(responses=shapes.KeyShape)
    def get(self, request: Request, pk: UUID) -> Response:
        """The private key again, until it is acknowledged or 24 hours have passed."""
        session, now = find(request, pk), clock.now()
        if not session.ssh_private_key or session.ssh_key_until is None or session.ssh_key_until <= now:
            raise Problem("key_gone", "This session's private key is not kept any more.", status_code=410)
        tell("ssh_key_read", "The private key was read.", now, session=session, actor=actor(request))
        return Response(
            {
                "session_id": str(session.pk),
                "ssh_private_key": session.ssh_private_key,
                "available_until": shapes.instant(session.ssh_key_until),
            },
            headers=NO_STORE,
        )

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Acknowledge: the key is safe with its owner and is erased here."""
        session = find(request, pk)
        with transaction.atomic():
            controller.forget_key(session, clock.now(), actor=actor(request))
            replies.forget_key(session)
        return Response(status=204)
