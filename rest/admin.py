"""Operators' pages: rows are read there, and changed by the service's own verbs only.

Every member of the staff is an operator, in the admin as in the API, and sees and ends everything. Only what
Django's permissions say (superusers, by default) may touch people: users, groups, consumers and their keys.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin, TabularInline

CONFIRMED = "confirmed"


def is_operator(request: HttpRequest) -> bool:
    return bool(request.user.is_active and getattr(request.user, "is_staff", False))


def actor(request: HttpRequest) -> str:
    """Who did it, as the timeline shows it."""
    return f"admin {request.user.get_username()}"[:100]


class _Unwritable:
    """Nobody adds, changes or deletes these rows by hand; every operator may read them."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_operator(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Verbs:
    """A page of one row offers the actions of its list as buttons: a POST each, with or without JavaScript."""

    change_form_outer_before_template = "admin/verbs.html"

    def verbs_for(self, obj: Any) -> list[str]:
        """The names of the actions that make sense for this row now."""
        return []

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        obj = self.get_object(request, object_id)  # type: ignore[attr-defined]
        offered = self.get_actions(request) if obj is not None else {}  # type: ignore[attr-defined]
        wanted = self.verbs_for(obj) if obj is not None else []
        verbs = [{"name": name, "text": offered[name][2]} for name in wanted if name in offered]
        context = {"verbs": verbs, "object_pk": obj.pk if obj is not None else "", **(extra_context or {})}
        answer: HttpResponse = super().change_view(request, object_id, form_url, context)  # type: ignore[misc]
        return answer


class ReadOnly(Verbs, _Unwritable, ModelAdmin):
    list_per_page = 50
    show_full_result_count = False  # Counting a long timeline costs more than it tells.


class ReadOnlyInline(_Unwritable, TabularInline):
    extra = 0
    can_delete = False
    tab = True


def confirmed(request: HttpRequest) -> bool:
    return CONFIRMED in request.POST


def ask(
    request: HttpRequest, page: ModelAdmin, rows: QuerySet[Any], *, action: str, title: str, warning: str,
    lines: list[str], button: str, form: forms.Form | None = None,
) -> TemplateResponse:  # fmt: skip
    """Show what an action would do to which rows, and do it only at the second POST."""
    context = {
        **page.admin_site.each_context(request),
        "title": title, "warning": warning, "lines": lines, "button": button, "form": form, "action": action,
        "pks": [row.pk for row in rows], "opts": page.model._meta, "checkbox": helpers.ACTION_CHECKBOX_NAME,
        "confirmed": CONFIRMED,
    }  # fmt: skip
    return TemplateResponse(request, "admin/confirm.html", context)


def counted(number: int, what: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
