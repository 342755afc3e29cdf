"""Where webhooks may go, and how one POST behaves on a real socket."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook, WebhookVerificationError

from costs import delivery, signing, targets
from costs.targets import Target
from providers import clock
from tests.costs.receiver import Receiver

INSIDE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.7",
    "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1", "100::1", "2001:db8::1", "2001::1",
    "3fff::1", "5f00::1", "::7f00:1", "64:ff9b:1::a00:1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:c0a8:101::",
]  # fmt: skip
OUTSIDE = [
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "172.15.255.255", "192.169.0.1",
    "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808", "::ffff:8.8.8.8",
    "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_nothing_inside_is_public_however_it_is_written(address: str) -> None:
    assert not targets.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_internet_is_public(address: str) -> None:
    assert targets.is_public(ipaddress.ip_address(address))


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    monkeypatch.setattr(targets, "resolve", lambda host, port: list(addresses))


def test_one_private_address_among_many_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, "1.1.1.1", "2606:4700::1", "10.0.0.7")
    with pytest.raises(targets.Forbidden, match="public internet") as told:
        targets.check("https://hooks.example.org/x", allow_private=False)
    assert "10.0.0.7" not in str(told.value), "which names our network has is nobody's business"


def test_a_scoped_link_local_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, "fe80::1%eth0")
    with pytest.raises(targets.Forbidden):
        targets.check("https://hooks.example.org/x", allow_private=False)


def test_the_checked_address_is_the_one_to_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, "1.1.1.1", "1.0.0.1")
    target = targets.check("https://hooks.example.org/a/b?c=d#e", allow_private=False)
    assert target == Target(True, "hooks.example.org", 443, "1.1.1.1", "/a/b?c=d")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/", "ftp://hooks.example.org/", "file:///etc/passwd", "gopher://x/",
        "hooks.example.org", "https://", "https:///path", "", "https://user:secret@hooks.example.org/", "https://user@hooks.example.org/",
        "https://hooks.example.org:22/", "https://hooks.example.org:0/", "https://hooks.example.org:99999/",
        "https://hooks.example.org:x/", "https://hooks.example.org/a b", "https://hooks.example.org/\r\nX: y",
        "https://[::1/", "https://h\u00f6oks.example.org/", "https://hooks.example.org/" + "x" * 2000,
        "https://127.0.0.1/", "https://[::1]/", "https://2130706433/", "https://0x7f.1/", "https://[::ffff:7f00:1]/",
        "https://0/", "https://localhost/", "https://[fe80::1]/",
    ],
)  # fmt: skip
def test_what_is_not_a_public_https_url_is_refused(url: str) -> None:
    with pytest.raises(targets.Forbidden):
        targets.check(url, allow_private=False)


def test_a_private_address_is_allowed_where_the_operator_says_so() -> None:
    target = targets.check("http://127.0.0.1:81/hook", allow_private=True)
    assert (target.tls, target.address, target.port) == (False, "127.0.0.1", 81)


def test_a_name_without_an_address_is_not_a_forbidden_one() -> None:
    with pytest.raises(targets.Unresolved):
        targets.resolve("no-such-name.invalid", 443)


# --- Signatures ----------------------------------------------------------------------------------------------


def test_a_third_party_library_accepts_the_signature_of_either_secret() -> None:
    old, new = signing.make_secret(), signing.make_secret()
    body = '{"type":"session.running","data":{"note":"h\u00e9"}}'
    headers = signing.headers([new, old], "msg_1", clock.now(), body.encode())
    assert Webhook(new).verify(body, headers)
    assert Webhook(old).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.make_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + " ", headers)


# --- One POST ------------------------------------------------------------------------------------------------


def at(receiver: Receiver, path: str = "/hook") -> Target:
    return Target(False, "hooks.example.org", receiver.port, "127.0.0.1", path)


def test_the_name_goes_into_the_host_header_and_the_address_is_connected_to(receiver: Receiver) -> None:
    assert delivery.post(at(receiver), b"{}", {"webhook-id": "1"}) == 204
    [got] = receiver.got
    assert got.headers["host"] == f"hooks.example.org:{receiver.port}"
    assert got.headers["webhook-id"] == "1"
    assert (got.path, got.body) == ("/hook", b"{}")


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert delivery.post(at(receiver), b"{}", {}) == 204


def test_a_redirect_is_an_answer_not_a_way(receiver: Receiver) -> None:
    receiver.answers = [(302, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"})]
    assert delivery.post(at(receiver), b"{}", {}) == 302
    assert len(receiver.got) == 1


def test_a_closed_door_is_told(receiver: Receiver) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(delivery.Undelivered, match="refused"):
        delivery.post(Target(False, "x", port, "127.0.0.1", "/"), b"{}", {})


@pytest.mark.real_time
def test_a_silent_receiver_is_left_after_the_time_limit(receiver: Receiver) -> None:
    receiver.hold.clear()
    with pytest.raises(delivery.Undelivered, match=r"within 0\.3 s"):
        delivery.post(at(receiver), b"{}", {}, timeout=0.3)


@pytest.mark.real_time
def test_an_answer_that_drips_is_cut_off() -> None:
    """Each byte comes within the socket's own time-out, so only a limit on the whole ends it."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer:
                try:
                    peer.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not done.wait(0.05):
                        peer.sendall(b"X-Drop: 1\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        began = clock.monotonic()
        try:
            with pytest.raises(delivery.Undelivered, match="no complete answer"):
                delivery.post(Target(False, "x", server.getsockname()[1], "127.0.0.1", "/"), b"{}", {}, timeout=0.5)
            assert clock.monotonic() - began < 5
        finally:
            done.set()
            thread.join()


@pytest.mark.real_time
def test_a_handshake_that_never_comes_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(delivery.Undelivered, match="within"):
        delivery.post(Target(True, "x", server.getsockname()[1], "127.0.0.1", "/"), b"{}", {}, timeout=0.3)


def test_what_is_not_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(delivery.Undelivered, match="not HTTP"):
            delivery.post(Target(False, "x", server.getsockname()[1], "127.0.0.1", "/"), b"{}", {})
        thread.join()


# --- TLS -------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for `name`, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver with a certificate for hooks.example.org, whose issuer we trust."""
    path = certificate(tmp_path, "hooks.example.org")
    monkeypatch.setattr(delivery, "tls_context", lambda: ssl.create_default_context(cafile=str(path)))
    with Receiver(certificate=path) as running:
        yield running


def test_the_certificate_is_checked_against_the_name_not_the_address(secure: Receiver) -> None:
    assert delivery.post(Target(True, "hooks.example.org", secure.port, "127.0.0.1", "/"), b"{}", {}) == 204
    with pytest.raises(delivery.Undelivered, match="certificate is not accepted"):
        delivery.post(Target(True, "other.example.org", secure.port, "127.0.0.1", "/"), b"{}", {})
    assert len(secure.got) == 1


def test_a_certificate_of_nobody_is_not_accepted(secure: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "tls_context", ssl.create_default_context)
    with pytest.raises(delivery.Undelivered, match="certificate is not accepted"):
        delivery.post(Target(True, "hooks.example.org", secure.port, "127.0.0.1", "/"), b"{}", {})
    assert not secure.got
