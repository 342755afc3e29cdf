"""Consumers and their keys, alarms, the people who may log in here, and the periodic work."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from gpushopper import alarms
from gpushopper.models import Alarm, ApiKey, Consumer, Pace, make_key
from providers import clock
from rest.admin import ReadOnly, Verbs, actor, ask, confirmed, counted, is_operator
from sessions.rows import tell

for taken in (User, Group, PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
    admin.site.unregister(taken)


@admin.register(User)
class OperatorAdmin(UserAdmin, ModelAdmin):  # type: ignore[type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class OperatorGroupAdmin(GroupAdmin, ModelAdmin):
    pass


# --- Consumers and keys ---------------------------------------------------------------------------------------


@admin.register(Consumer)
class ConsumerAdmin(Verbs, ModelAdmin):
    list_display = ["name", "created_at", "live_keys"]
    search_fields = ["name"]
    actions = ["give_a_key", "give_an_operator_key"]
    fields = ["name", "created_at", "live_keys", "notes"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["created_at", "live_keys", "name"] if obj else ["created_at", "live_keys"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_operator(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # Its costs are kept by its name.

    def has_give_key_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("gpushopper.add_apikey")  # A key outlives its giver's own access.

    def verbs_for(self, obj: Consumer) -> list[str]:
        return ["give_a_key", "give_an_operator_key"]

    @display(description="live keys")
    def live_keys(self, consumer: Consumer) -> int:
        now = clock.now()
        return sum(key.is_live(now) for key in consumer.keys.all())

    @action(description="Give an API key", permissions=["give_key"])
    def give_a_key(self, request: HttpRequest, queryset: QuerySet[Consumer]) -> HttpResponse:
        return self._give(request, queryset, ApiKey.Role.CONSUMER)

    @action(description="Give an operator's key …", permissions=["give_key"])
    def give_an_operator_key(self, request: HttpRequest, queryset: QuerySet[Consumer]) -> HttpResponse:
        if not confirmed(request):
            return ask(
                request, self, queryset, action="give_an_operator_key", title="Give a key that may do everything?",
                warning="An operator's key sees, rents and ends for every consumer.",
                lines=[consumer.name for consumer in queryset], button="Give it",
            )  # fmt: skip
        return self._give(request, queryset, ApiKey.Role.OPERATOR)

    def _give(self, request: HttpRequest, queryset: QuerySet[Consumer], role: str) -> HttpResponse:
        """The key is in this one answer: in no message, cookie or session that would keep it."""
        keys = []
        for consumer in queryset:
            key, text = make_key(consumer, role)
            tell("key_given", f"{consumer.name} was given key {key}, role {role}.", clock.now(), actor=actor(request))
            keys.append((consumer.name, role, text))
        context = {**self.admin_site.each_context(request), "title": "API key", "keys": keys, "opts": self.opts}
        answer = TemplateResponse(request, "admin/key_shown_once.html", context)
        answer["Cache-Control"] = "no-store"
        return answer


@admin.register(ApiKey)
class ApiKeyAdmin(Verbs, ModelAdmin):
    list_display = ["__str__", "consumer", "role", "created_at", "last_used_at", "expires_at", "shown_state"]
    list_filter = ["role", "consumer"]
    search_fields = ["prefix", "consumer__name"]
    fields = ["consumer", "role", "shown_state", "created_at", "last_used_at", "expires_at", "revoked_at"]
    readonly_fields = ["consumer", "role", "shown_state", "created_at", "last_used_at", "revoked_at"]
    actions = ["revoke"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_operator(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # A key is given on its consumer's page, where it can be shown once.

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def verbs_for(self, obj: ApiKey) -> list[str]:
        return ["revoke"] if obj.revoked_at is None else []

    @display(description="state", label={"live": "success", "expired": "warning", "revoked": "danger"})
    def shown_state(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "live" if key.is_live(clock.now()) else "expired"

    @action(description="Revoke …")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        live = queryset.filter(revoked_at=None)
        if not live:
            messages.warning(request, "They are revoked already.")
            return None
        if not confirmed(request):
            return ask(
                request, self, live, action="revoke", title=f"Revoke {counted(len(live), 'key')}?",
                warning="Whoever uses it is locked out at once, for good. Running sessions go on.",
                lines=[f"{key} of {key.consumer_id}, role {key.role}" for key in live], button="Revoke",
            )  # fmt: skip
        now = clock.now()
        for key in live:
            if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
                tell("key_revoked", f"Key {key} of {key.consumer_id} was revoked.", now, actor=actor(request))
        messages.success(request, "Revoked, at once.")
        return None


# --- Alarms, paces, periodic work -----------------------------------------------------------------------------


@admin.register(Alarm)
class AlarmAdmin(ReadOnly):
    list_display = ["shown_name", "text", "raised_at", "over_at", "lasted"]
    list_filter = ["name", ("over_at", admin.EmptyFieldListFilter)]
    search_fields = ["subject", "text"]
    date_hierarchy = "raised_at"
    fields = ["shown_name", "subject", "text", "raised_at", "over_at", "lasted"]

    @display(description="alarm", ordering="name")
    def shown_name(self, alarm: Alarm) -> str:
        return alarm.name.replace("_", " ")

    @display(description="for")
    def lasted(self, alarm: Alarm) -> str:
        return alarms.minutes((alarm.over_at or clock.now()) - alarm.raised_at)


@admin.register(Pace)
class PaceAdmin(ReadOnly):
    """When the next call of one provider key and route may be sent. The keys themselves are hashed in it."""

    list_display = ["key", "free_at"]


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ReadOnly):
    """What beat sends. The list is `BEAT` in the settings: changed there, it is written here at the next start."""

    list_display = ["name", "task", "shown_schedule", "enabled", "last_run_at", "total_run_count"]
    fields = ["name", "task", "shown_schedule", "enabled", "queue", "last_run_at", "total_run_count", "date_changed"]

    @display(description="schedule")
    def shown_schedule(self, task: PeriodicTask) -> str:
        return str(task.scheduler)


@admin.register(IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule)
class ScheduleAdmin(ReadOnly):
    list_display = ["__str__"]
