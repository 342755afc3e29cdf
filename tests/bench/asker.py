"""`python -m tests.bench.asker HOST PORT KEY TIMES PATH`: a client in a process of its own, so that it takes no turns
from the server that it measures. Prints the median milliseconds of a page, and of an unchanged page."""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Any

from tests.bench.figure import p50


def main(host: str, port: str, key: str, times: str, path: str) -> None:
    line = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Authorization": f"Bearer {key}"}
    status, etag, body, _ = _get(line, path, headers)
    assert status == 200 and json.loads(body)["count"] == 50, body
    pages = [_get(line, path, headers) for _ in range(int(times))]
    unchanged = [_get(line, path, {**headers, "If-None-Match": etag}) for _ in range(int(times))]
    assert {status for status, *_ in pages} == {200} and {status for status, *_ in unchanged} == {304}
    sys.stdout.write(json.dumps([p50([taken * 1000 for *_, taken in asked]) for asked in (pages, unchanged)]))


def _get(line: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> tuple[int, str, bytes, Any]:
    began = time.perf_counter()
    line.request("GET", path, headers=headers)
    answer = line.getresponse()
    body = answer.read()
    return answer.status, answer.headers.get("ETag", ""), body, time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
