"""HTTP to providers: time-outs, pacing, size limits, redaction, and what may be sent twice.

The only file in which a provider is spoken to over the network. It knows HTTP and nothing of any provider's
meaning: an adapter gives it a `Call` and gets an `Answer`, or one of the errors of `providers.base`.
Provider replies are treated as hostile: no redirects, no cookies, no proxies from the environment, bounded
in time and size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import requests
import urllib3

from providers import clock
from providers.base import NotSent, NotUnderstood, Unavailable

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 1024 * 1024
TEXT_HEAD = 300  # characters of a body that are kept for people
SHOWN_BYTES = 8 * TEXT_HEAD  # of a body are looked at for them

# A worker that waits holds a slot of the engine; a row that waits costs nothing. So long waits go back
# to the caller as `Unavailable.retry_after`.
LONGEST_WAIT = 15.0  # seconds

CONNECT_TIMEOUT = 5.0  # seconds
READ_ATTEMPTS = 3


# --- What goes out, what comes back -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `route` is the path without ids: calls of one method and route share one pace."""

    operation: str  # quotes, list, get, create, destroy, relabel, attach_key, charges, account
    method: str
    path: str
    route: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    form: Mapping[str, str] | None = None  # instead of `body`: URL-encoded
    interval: float = 0.0  # least seconds between two calls of this method and route
    read_timeout: float = 30.0  # seconds of silence
    total_timeout: float = 60.0  # seconds from sending to the last byte
    secrets: tuple[str, ...] = field(default=(), repr=False)  # what is sent and may be echoed, but never shown


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that arrived whole. `body` is the parsed JSON, its fractions as Decimal; None if it is no JSON.

    A body of `null` is no JSON to us either: no provider says anything with it.
    """

    status: int
    body: Any
    text: str  # the head of the body, redacted and on one line, for people
    retry_after: float | None = None  # seconds, from the header
    secrets: tuple[str, ...] = field(default=(), repr=False)  # the call's: whoever shows more than `text` hides them

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body if it is an object, else an empty one."""
        return self.body if isinstance(self.body, dict) else {}


class Pacer(Protocol):
    def reserve(self, key: str, interval: float) -> float:
        """Book the next free slot of `key` and `interval` seconds from it on; return the seconds until it.

        A slot further away than `LONGEST_WAIT` is told but not booked: nobody will wait for it.
        """


class LocalPacer:
    """Paces the threads of one process. Several processes on one key need a shared pacer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}

    def reserve(self, key: str, interval: float) -> float:
        with self._lock:
            now = clock.monotonic()
            slot = max(now, self._free_at.get(key, now))
            if slot - now <= LONGEST_WAIT:
                self._free_at[key] = slot + interval
            return slot - now


class NoPacer:
    """For stand-ins that enforce no limits."""

    def reserve(self, key: str, interval: float) -> float:
        return 0.0


Observer = Callable[[str, str, str, float], None]

# Called with (provider, operation, outcome, seconds) after each request. Outcomes: ok, rejected (4xx),
# limited (429), error (5xx), unusable (redirect, too large, cut off), unreachable.
observers: list[Observer] = []


# --- Redaction ----------------------------------------------------------------------------------------

# A name and its value as JSON, as JSON inside a JSON text (with backslashes), as Python writes a dict, or as `a=b`.
# Where an end can't be told for sure, too much is hidden.
_SECRET_FIELD = re.compile(
    r"""((?:image_login|extra_env|\benv|onstart|runcmd|(?:api|access|private|ssh|public)_?key
          |token|secret|password|passwd|authorization)\\*["']?\s*[:=]\s*)
        (?:"(?:[^"\\]|\\+[^\\])*"?                      # "…"
          |'(?:[^'\\]|\\+[^\\])*'?                      # '…'
          |(\\+["']).*?(?:(?<!\\)\2|\Z)                 # \"…\", up to a quote with as many backslashes
          |[\[{(].*                                     # a list, or an object: all the rest
          |[^\s,;}&]+)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_BEARER = re.compile(r"(bearer\s+)\S+", re.IGNORECASE)
_LONG_TOKEN = re.compile(r"\b[0-9A-Za-z_-]{40,}\b")  # longer than any id, tag or layer name that is shown
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\u024f]+")


# Shorter ones are words like "true" and "8000"; to hide those would make every text unreadable.
SHORTEST_SECRET = 6
# So much of a secret is hidden wherever it stands: validators cut long values in the middle, and we cut bodies.
_PART = 8


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without `secrets`, whole or in part, and without whatever looks like one."""
    forms = {form for secret in secrets for form in _forms(secret.strip())}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "[redacted]")
    text = _without_parts(text, forms)
    text = _BEARER.sub(r"\1[redacted]", text)
    text = _SECRET_FIELD.sub(r"\1[redacted]", text)
    return _LONG_TOKEN.sub("[redacted]", text)


def _forms(secret: str) -> tuple[str, ...]:
    """As it is, as in JSON, as in JSON inside a JSON text, and as Python shows it, bare or in a JSON text."""
    if len(secret) < SHORTEST_SECRET:
        return ()
    shown = repr(secret)[1:-1]
    return secret, _in_json(secret), _in_json(_in_json(secret)), shown, _in_json(shown), _in_json(secret, ascii=False)


def _in_json(text: str, *, ascii: bool = True) -> str:
    return json.dumps(text, ensure_ascii=ascii)[1:-1]


def _without_parts(text: str, secrets: Iterable[str]) -> str:
    parts = {secret[at : at + _PART] for secret in secrets for at in range(len(secret) - _PART + 1)}
    if not parts:
        return text
    kept, at = [], 0
    while at < len(text):
        end = at
        while text[end : end + _PART] in parts:
            end += 1
        kept.append(text[at] if end == at else "[redacted]")
        at = at + 1 if end == at else end - 1 + _PART
    return "".join(kept)


def one_line(text: str, limit: int = TEXT_HEAD) -> str:
    """`text` fit for a log line or a page: printable, on one line, at most `limit` characters."""
    line = _NOT_PRINTABLE.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


# --- The client ---------------------------------------------------------------------------------------


class Client:
    """One account at one provider, over one pooled session.

    Raises ValueError if the base URL or the key can't be right; the message names neither.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        key: str,
        *,
        session: requests.Session | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self.provider = provider
        self.session = session or requests.Session()
        self.session.trust_env = False
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._base_url = _checked_url(provider, base_url)
        self._key = _checked_key(provider, key)
        self._account = hashlib.sha256(self._key.encode()).hexdigest()[:12]
        self._pacer = pacer or LocalPacer()

    def __repr__(self) -> str:
        return f"Client({self.provider!r})"

    def read(self, call: Call, *, attempts: int = READ_ATTEMPTS) -> Answer:
        """Ask something that changes nothing; asked again, a bounded number of times, where that may help.

        Raises:
            Unavailable: no answer, a 429 or a 5xx, still, after the last attempt.
            NotUnderstood: a redirect.
        """
        left = LONGEST_WAIT
        for attempt in range(1, attempts + 1):
            try:
                answer = self._paced(call)
                trouble = self._trouble(call, answer, attempt)
                if trouble is None:
                    return answer
            except NotSent:
                raise
            except Unavailable as error:
                trouble = error
            wait = _backoff(attempt, trouble.retry_after)
            if attempt == attempts or wait > left:
                raise trouble
            left -= wait
            clock.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def send_once(self, call: Call) -> Answer:
        """Ask for a change, with exactly one request: nothing is sent twice, whatever comes back.

        A 4xx, and a 5xx whose body is JSON, is an `Answer`: the body may tell what was done all the same.

        Raises:
            Unavailable: no usable answer; the change may have happened. Also before anything was sent, if
                the pace would have this call wait for longer than `LONGEST_WAIT`.
            NotUnderstood: a redirect; the change may have happened.
        """
        answer = self._paced(call)
        if answer.status >= 500 and answer.body is None:
            raise Unavailable(f"{self._what(call)} was answered {answer.status}: {answer.text}")
        return answer

    def redacted(self, text: str, secrets: Iterable[str] = ()) -> str:
        # The account's key goes however short it is.
        return redact(text.replace(self._key, "[redacted]"), (self._key, *secrets))

    def _what(self, call: Call) -> str:
        return f"{self.provider} {call.operation}"

    def _trouble(self, call: Call, answer: Answer, attempt: int) -> Unavailable | None:
        """Why a read may be asked again; None if the answer is one."""
        if answer.status == 429:
            wait = limited_for(answer, attempt)
            return Unavailable(f"{self._what(call)}: too many requests", retry_after=wait)
        if answer.status >= 500:
            message = f"{self._what(call)} was answered {answer.status}: {answer.text}"
            return Unavailable(message, retry_after=answer.retry_after)
        return None

    def _paced(self, call: Call) -> Answer:
        pace = f"{self.provider}:{self._account}:{call.method} {call.route or call.path}"
        wait = self._pacer.reserve(pace, call.interval)
        if wait > LONGEST_WAIT:
            raise NotSent(f"{self._what(call)}: not sent, to stay within the rate limit", retry_after=wait)
        if wait > 0:
            clock.sleep(wait)
        answer = self._observed(call)
        if answer.status == 429:
            # The penalty is booked, so that other callers on this key keep away too.
            self._pacer.reserve(pace, limited_for(answer, 1))
        return answer

    def _observed(self, call: Call) -> Answer:
        began = clock.monotonic()
        outcome = "unusable"
        try:
            answer = self._exchange(call, began)
            outcome = _outcome(answer.status)
            return answer
        except Unavailable as error:
            outcome = "unusable" if isinstance(error, _CutOff) else "unreachable"
            raise
        finally:
            self._tell_observers(call.operation, outcome, clock.monotonic() - began)

    def _tell_observers(self, operation: str, outcome: str, seconds: float) -> None:
        for observe in observers:
            try:
                observe(self.provider, operation, outcome, seconds)
            except Exception as error:  # A figure that can't be written must not change what happened.
                log.warning("a call of %s could not be counted: %s", self.provider, type(error).__name__)

    def _exchange(self, call: Call, began: float) -> Answer:
        try:
            with self.session.request(
                call.method,
                self._base_url + call.path,
                params=dict(call.params) or None,
                data=_sent(call),
                headers=self._headers(call),
                timeout=(CONNECT_TIMEOUT, call.read_timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                clock.hear(self.provider, _time_told(response.headers))
                raw = _read_body(response, deadline=began + call.total_timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # Its text may name URLs and peers; its kind says enough.
            raise Unavailable(f"{self._what(call)}: no answer ({type(error).__name__})") from None
        except _CutOff as error:
            raise _CutOff(f"{self._what(call)}: {error}") from None
        if 300 <= response.status_code < 400:
            raise NotUnderstood(f"{self._what(call)} was redirected ({response.status_code}), which is not followed")
        return self._answer(call, response, raw)

    def _answer(self, call: Call, response: requests.Response, raw: bytes) -> Answer:
        # Redacted before it is cut, so that no half of a secret is left at the cut.
        text = one_line(self.redacted(raw[:SHOWN_BYTES].decode("utf-8", "replace"), call.secrets))
        return Answer(
            status=response.status_code,
            body=parsed(raw),
            text=text,
            retry_after=_retry_after(response.headers.get("Retry-After")),
            secrets=call.secrets,
        )

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Accept": "application/json",
            "User-Agent": "gpu-shopper",
        }
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        elif call.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return headers


def _sent(call: Call) -> bytes | None:
    if call.form is not None:
        return urlencode(call.form).encode()
    return None if call.body is None else json.dumps(call.body, default=_number).encode()


class _CutOff(Unavailable):
    """The reply was too large or took too long."""


# --- Rate limits --------------------------------------------------------------------------------------

_THRESHOLD = re.compile(r"threshold=(\d+(?:\.\d+)?)(?:\*(\d+(?:\.\d+)?))?")
_LONGEST_PENALTY = 3600.0  # seconds; whatever a limiter says, an hour later is early enough to ask again


def limited_for(answer: Answer, attempt: int = 1) -> float:
    """Seconds to keep away after a 429: the longest of what header, body and text say, and 2^attempt.

    Vast.ai states its thresholds in the text, as seconds between two calls ("threshold=4.5*1.0").
    """
    said = [2.0**attempt, answer.retry_after or 0.0, _seconds(answer.fields.get("retry_after"))]
    found = _THRESHOLD.search(answer.text)
    if found:
        said.append(float(found[1]) * float(found[2] or 1))
    return min(max(said), _LONGEST_PENALTY)


def _backoff(attempt: int, retry_after: float | None) -> float:
    """With jitter, so that workers that failed together do not come back together."""
    jitter = random.uniform(1.0, 1.25)  # noqa: S311  (not a secret)
    return max(retry_after or 0.0, 0.5 * (1 << attempt)) * jitter


def _retry_after(header: str | None) -> float | None:
    """Seconds, from either form of the header; None if there is none that can be read."""
    if not header:
        return None
    if header.strip().isdigit():
        return min(float(header.strip()[:9]), _LONGEST_PENALTY)
    at = _date(header)
    return None if at is None else min(max(0.0, (at - clock.now()).total_seconds()), _LONGEST_PENALTY)


def _time_told(headers: Mapping[str, str]) -> datetime | None:
    """The time at which it was answered; a cache in between says for how long it has kept the answer (RFC 9111)."""
    at, age = _date(headers.get("Date")), headers.get("Age", "")
    if at is None or not 2000 <= at.year < 3000:
        return None
    return at + timedelta(seconds=int(age[:9]) if age.isdecimal() else 0)


def _date(header: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(header or "")
    except (ValueError, TypeError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return 0.0
    return min(max(float(value), 0.0), _LONGEST_PENALTY)


# --- Bytes --------------------------------------------------------------------------------------------


def _read_body(response: requests.Response, *, deadline: float) -> bytes:
    """The whole body, decoded. Raises `_CutOff` if it is too large or not complete by `deadline`."""
    chunks: list[bytes] = []
    size = 0
    # read1 returns whatever has arrived: a body that drips in byte by byte can't outlive the deadline.
    while chunk := response.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _CutOff(f"an answer of more than {MAX_BODY_BYTES // 1024**2} MiB")
        if clock.monotonic() > deadline:
            raise _CutOff("an answer that took too long")
        chunks.append(chunk)
    return b"".join(chunks)


def parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")


def _outcome(status: int) -> str:
    if status == 429:
        return "limited"
    if status >= 500:
        return "error"
    return "rejected" if status >= 400 else "ok"


def _checked_url(provider: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query:
        raise ValueError(f"the base URL of {provider} must look like https://host[/path]")
    return url.rstrip("/")


def _checked_key(provider: str, key: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"the API key of {provider} has characters that no key has")
    return key
