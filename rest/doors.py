"""What every view of the API has in common: it reads nothing that it has not said it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.views import APIView

from rest.params import Nothing, Query, check_body, read_query

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

# An answer with a secret in it.
NO_STORE = {"Cache-Control": "no-store"}


class Door(APIView):
    """A view whose unread parameters are errors, also where it reads none.

    `queries` and `bodies` name the methods that read a query or a body; the query is checked before the
    method runs and is then in `self.query`. Whatever is not named there may not be sent.
    """

    queries: ClassVar[Mapping[str, type[Query]]] = {}
    bodies: ClassVar[Sequence[str]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in self.allowed_methods:
            self.http_method_not_allowed(request)  # raises, before anything is said of what came along
        method = "GET" if request.method == "HEAD" else str(request.method)
        self.query = read_query(self.queries.get(method, Query), request)
        if method in CHANGING and method not in self.bodies:
            check_body(Nothing, request)
