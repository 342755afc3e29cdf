"""Consumers and their keys."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from gpushopper.models import ApiKey, Consumer, make_key
from providers import clock

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class OperatorAdmin(UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class OperatorGroupAdmin(GroupAdmin, ModelAdmin):
    pass


@admin.register(Consumer)
class ConsumerAdmin(ModelAdmin):
    list_display = ["name", "created_at", "live_keys"]
    search_fields = ["name"]
    readonly_fields = ["created_at"]
    actions = ["give_a_key"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["created_at", "name"] if obj else ["created_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # Its costs are kept by its name.

    @display(description="live keys")
    def live_keys(self, consumer: Consumer) -> int:
        now = clock.now()
        return sum(key.is_live(now) for key in consumer.keys.all())

    @action(description="Give a new API key (shown once)")
    def give_a_key(self, request: HttpRequest, queryset: QuerySet[Consumer]) -> None:
        for consumer in queryset:
            _, text = make_key(consumer)
            messages.warning(request, f"{consumer.name}: {text} – copy it now, it is not shown again.")


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ["__str__", "consumer", "role", "created_at", "last_used_at", "expires_at", "shown_state"]
    list_filter = ["role", "consumer"]
    fields = ["consumer", "role", "created_at", "last_used_at", "expires_at", "revoked_at"]
    readonly_fields = ["consumer", "role", "created_at", "last_used_at", "revoked_at"]
    actions = ["revoke"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # A key is given on its consumer's page, where it can be shown once.

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="state", label={"live": "success", "dead": "danger"})
    def shown_state(self, key: ApiKey) -> str:
        return "live" if key.is_live(clock.now()) else "dead"

    @action(description="Revoke")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        revoked = queryset.filter(revoked_at=None).update(revoked_at=clock.now())
        messages.success(request, f"{revoked} keys revoked, at once.")
