"""One POST to a checked target, within a time limit for the whole of it.

No redirects, no proxies, no cookies, no second look-up: `http.client` on a socket that is connected to the
address which was judged. The certificate is checked against the name.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from costs.targets import Target

TIMEOUT = 15.0  # seconds, from the connection to the status line and headers


class Undelivered(Exception):
    """No answer that could be read. The message may be shown to the endpoint's owner."""


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)


def post(target: Target, body: bytes, headers: Mapping[str, str], timeout: float = TIMEOUT) -> int:
    """Send it; the status of the answer. What else the answer says is not read.

    Raises:
        Undelivered: there was none. It may have arrived all the same.
    """
    connection = _Connection(target, timeout)
    # A socket's own time-out begins anew with every byte, so one that drips would hold us for ever.
    cut = threading.Timer(timeout, connection.cut)
    cut.daemon = True
    cut.start()
    try:
        connection.request("POST", target.path, body, dict(headers))
        status = connection.getresponse().status
        if connection.is_cut:  # `http.client` takes the end of the connection for the end of the headers.
            raise TimeoutError
        return status
    except (OSError, http.client.HTTPException, ValueError) as error:
        if connection.is_cut or isinstance(error, TimeoutError):
            raise Undelivered(f"no complete answer within {timeout:g} s") from error
        raise Undelivered(_sentence(error)) from error
    finally:
        cut.cancel()
        connection.close()


def _sentence(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no reason given'}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"the answer is not HTTP ({type(error).__name__})"


class _Connection(http.client.HTTPConnection):
    """Connects to the target's address and speaks to its host."""

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout)
        self.default_port = 443 if target.tls else 80  # left out of the Host header
        self.target = target
        self.is_cut = False

    def connect(self) -> None:
        self.sock = socket.create_connection((self.target.address, self.target.port), self.timeout)
        if self.target.tls:
            self.sock = tls_context().wrap_socket(
                self.sock, server_hostname=self.target.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()
        if self.is_cut:
            raise TimeoutError

    def cut(self) -> None:
        """Called by another thread: whatever is waiting on the socket ends now."""
        self.is_cut = True
        with suppress(OSError):  # It may be closed already.
            if self.sock is not None:
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
