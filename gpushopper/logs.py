"""The last net under secrets: whatever looks like one leaves no log line.

Nothing should reach this; adapters and models redact where the secret is. The environment's own keys
are matched to the letter, keys of ours and private keys by their shape.
"""

from __future__ import annotations

import logging
import re

_SHAPES = re.compile(
    r"gs_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{20,}|whsec_[A-Za-z0-9+/=]{20,}|Bearer\s+[^\s\"',]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
    re.DOTALL,
)


def redact(text: str) -> str:
    return _SHAPES.sub("[redacted]", text)


class Redact(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
