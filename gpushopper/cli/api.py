"""The API over HTTP: one call, its JSON, and every way in which it fails as a sentence.

Only reads are repeated. The one write that is, the POST that rents, carries an `Idempotency-Key`: after a
lost answer the same key gets the first answer again, and nothing is rented twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from gpushopper.cli.failure import Failure, NotAuthorised, Refused, Unreachable

CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0  # seconds
# Before each repetition, in seconds: a service that is being restarted is back after 5.
PAUSES = (0.3, 0.7, 1.5, 2.5)
LONGEST_PAUSE = 10.0  # a server that asks for more has its answer shown instead
COME_BACK = (429, 502, 503, 504)
MOST_PER_PAGE = 500

Body = dict[str, Any]


class NoAnswer(Unreachable):
    """The connection failed, or no answer came: a write may have arrived."""


class _Bearer(requests.auth.AuthBase):
    """Set as `auth`, so that requests doesn't put a password from ~/.netrc in the key's place."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


class Api:
    def __init__(self, server: str, key: str) -> None:
        self.server = server
        self._http = requests.Session()
        self._http.auth = _Bearer(key)
        # A proxy for the world has no business between us and a server on this computer.
        self._http.trust_env = urlsplit(server).hostname not in ("localhost", "127.0.0.1", "::1")
        self.now = datetime.now(UTC)

    def get(self, path: str, **query: Any) -> Body:
        return self._patiently("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Body:
        return self._once("POST", path, body=body)

    def delete(self, path: str) -> Body:
        return self._once("DELETE", path)

    def rent(self, body: Mapping[str, Any]) -> Body:
        """POST /sessions, so that it can be said again after a lost answer."""
        return self._patiently("POST", "/sessions", body=body, headers={"Idempotency-Key": str(uuid.uuid4())})

    def pages(self, path: str, items: str, **query: Any) -> Iterator[Body]:
        """Everything of a list, page after page."""
        offset, total = 0, 1
        while offset < total:
            page = self.get(path, limit=MOST_PER_PAGE, offset=offset, **query)
            yield from page[items]
            offset, total = offset + MOST_PER_PAGE, page["total"]

    def _patiently(self, method: str, path: str, **what: Any) -> Body:
        for pause in PAUSES:
            try:
                return self._once(method, path, **what)
            except NoAnswer:
                time.sleep(pause)
            except _ComeBack as error:
                if error.after > LONGEST_PAUSE:
                    raise
                time.sleep(error.after or pause)
        return self._once(method, path, **what)

    def _once(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Body:
        try:
            answer = self._http.request(
                method, f"{self.server}/api/v1{path}", params=given(query or {}), json=body, headers=headers,
                timeout=(CONNECT_TIMEOUT, ANSWER_TIMEOUT), allow_redirects=False,
            )  # fmt: skip
        except requests.RequestException as error:
            raise NoAnswer(
                f"No GPU Shopper answers at {self.server}. Start it with `make run`, or set --server.",
                "" if isinstance(error, requests.ConnectionError) else f"({type(error).__name__})",
            ) from None  # The text of the cause has the address again, and nothing that helps.
        self.now = _date(answer) or datetime.now(UTC)
        return self._read(answer)

    def _read(self, answer: requests.Response) -> Body:
        if answer.is_redirect:
            raise Unreachable(f"{self.server} points elsewhere; set --server to {answer.headers['Location']}")
        body = _json(answer)
        if answer.ok and (body is not None or not answer.content):
            return body or {}
        if body is None or "error" not in body:
            raise _unknown(self.server, answer)
        raise refusal(answer.status_code, body, _retry_after(answer))


class _ComeBack(Refused):
    """The server asks to be asked again later."""

    after = 0.0


def given(query: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not said."""
    return {name: value for name, value in query.items() if value not in (None, [], ())}


def refusal(status: int, body: Body, retry_after: float = 0.0) -> Failure:
    """The server's error as ours: its sentence, the fields at fault, and the request's id."""
    sentence = str(body["error"])
    fields = [
        f"{name}: {' '.join(map(str, said))}"
        for name, said in (body.get("fields") or {}).items()
        if " ".join(map(str, said)) not in sentence
    ]
    named = f"request id {body['request_id']}" if body.get("request_id") else ""
    kind = NotAuthorised if status in (401, 403) else _ComeBack if status in COME_BACK else Refused
    advice = HOW_TO_GET_A_KEY if status == 401 else ()
    failure = kind(sentence, *fields, *advice, named, status=status, error_type=str(body.get("error_type", "")))
    if isinstance(failure, _ComeBack):
        failure.after = retry_after
    return failure


HOW_TO_GET_A_KEY = (
    "Set GPU_SHOPPER_API_KEY, or keep the key with `gpu-shopper config set api-key`.",
    "Whoever runs the server makes one with `python manage.py create_consumer NAME`.",
)


def _unknown(server: str, answer: requests.Response) -> Failure:
    if answer.status_code in COME_BACK:
        return _ComeBack(f"{server} answers {answer.status_code}; try again in a minute.", status=answer.status_code)
    if answer.status_code >= 500:
        return Refused(f"{server} answers {answer.status_code} and does not say why.", status=answer.status_code)
    return Unreachable(
        f"Something answers at {server}, but it is no GPU Shopper (HTTP {answer.status_code}). Set --server."
    )


def _json(answer: requests.Response) -> Body | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _retry_after(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _date(answer: requests.Response) -> datetime | None:
    """The server's clock: "ends in 2 h" is to be right on a computer whose own clock is not."""
    try:
        return parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
