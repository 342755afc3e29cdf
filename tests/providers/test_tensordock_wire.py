"""What really goes over a socket: one create is one POST, whatever comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from providers.base import LaunchSpec, ProviderError
from providers.http import NoPacer
from providers.tensordock import TensorDock

ANSWERS = {
    "500": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
    "503": b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
    "429": b"HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
    "401": b"HTTP/1.1 401 No\r\nContent-Length: 12\r\n\r\nUnauthorized",
    "a redirect": b"HTTP/1.1 307 There\r\nLocation: /instances\r\nContent-Length: 0\r\n\r\n",
    "a closed connection": b"",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "success without an id": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
}


@contextmanager
def _server(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answers each connection with `answer` and closes it; the list holds the first line of each request."""
    heads: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        listener.settimeout(0.1)
        while not done.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                continue
            with peer:
                peer.settimeout(5)
                heads.append(_request(peer).split(b"\r\n", 1)[0])
                peer.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heads
    finally:
        done.set()
        thread.join(10)
        listener.close()


def _request(peer: socket.socket) -> bytes:
    """All of it: an answer to half a request would look like a broken connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += peer.recv(65536)
    return head


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_create_is_one_post_whatever_comes_back(answer: str) -> None:
    spec = LaunchSpec(
        label="gs-tag",
        quote_id="5b0c1d7e-3a42-4f0e-9a63-0d8f7c2b9e11-l4-pcie-24gb",
        gpu_name="l4-pcie-24gb",
        gpu_count=1,
        disk_gb=100,
        cpu_cores=8,
        ram_gb=32,
        ssh_public_keys=("ssh-ed25519 AAAA",),
    )
    with _server(ANSWERS[answer]) as (url, heads), pytest.raises(ProviderError):
        TensorDock("token", url, pacer=NoPacer()).create(spec)
    assert heads == [b"POST /instances HTTP/1.1"]
