"""The SSH server of one sandbox machine, on a loopback port of its own.

Sockets and threads live here; what a command answers is the guest's business. A *door* is asked at
each new connection, so that a machine can be unreachable, mute or deaf while it boots or breaks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
import socket
import stat
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)
from paramiko.sftp import SFTP_FAILURE, SFTP_NO_SUCH_FILE, SFTP_OK

from providers.sandbox.guest import Guest, to_bytes, to_text
from providers.sandbox.shell import Result

HOST = "127.0.0.1"  # a stand-in with made-up keys has no business on a network
BANNER = "SSH-2.0-OpenSSH_9.6"
# How long `stop` waits for each thread after it closed that thread's socket. None should take this long.
END_TIMEOUT = 5.0
# paramiko tells of every visitor who hangs up early, with a traceback; only who asks shall hear it.
LOG = "providers.sandbox.ssh"
logging.getLogger(LOG).addHandler(logging.NullHandler())
# SO_LINGER on, zero seconds: close() resets the connection instead of ending it politely.
RESET = struct.pack("ii", 1, 0)

Lock = AbstractContextManager[object]


class SshServer:
    """Serves one guest between `start` and `stop`; the port is known from the beginning.

    `door()` is asked for each connection and answers
    - "open": a key that the guest accepts logs in;
    - "no_auth": the handshake works and every key is refused;
    - "refused": reset at once; "closed": a banner, then the end; "timeout": accepted, then silence.

    `lock` is held while door or guest are asked. The host key follows from `seed`; "" makes a random one.
    """

    def __init__(
        self,
        guest: Guest,
        door: Callable[[], str] = lambda: "open",
        *,
        seed: str = "",
        lock: Lock | None = None,
    ) -> None:
        self.guest, self.door = guest, door
        self.lock: Lock = lock or threading.RLock()
        self.key = make_host_key(seed)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: set[_Connection] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._listen, name=f"sandbox-ssh-{self.port}", daemon=True)

    @property
    def host_key(self) -> str:
        """As in known_hosts: "ssh-ed25519 AAAA…"."""
        return key_line(self.key)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait until their threads have ended."""
        self._stopping = True
        # accept() is not woken by a close() on every system; a visitor of our own does it on all.
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), END_TIMEOUT):
            self._thread.join(END_TIMEOUT)
        self._listener.close()
        for connection in list(self._connections):
            connection.end()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._stopping:
                client.close()
                return
            self._connections = {one for one in self._connections if one.is_alive()}
            connection = _Connection(self, client)
            self._connections.add(connection)
            connection.start()


def make_host_key(seed: str = "") -> paramiko.PKey:
    """An Ed25519 key, always the same for the same seed; random for ""."""
    secret = hashlib.sha256(f"sandbox host key {seed}".encode()).digest() if seed else secrets.token_bytes(32)
    pem = Ed25519PrivateKey.from_private_bytes(secret).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return paramiko.Ed25519Key(file_obj=io.StringIO(pem.decode()))


def key_line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


class _Connection(threading.Thread):
    """One visitor, from the door to the end."""

    def __init__(self, server: SshServer, client: socket.socket) -> None:
        super().__init__(name=f"sandbox-ssh-{server.port}-visit", daemon=True)
        self._server, self._client = server, client
        self._transport: paramiko.Transport | None = None

    def run(self) -> None:
        with self._client, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._receive()

    def _receive(self) -> None:
        with self._server.lock:
            door = self._server.door()
        match door:
            case "open" | "no_auth":
                self._serve(deaf=door == "no_auth")
            case "refused":
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            case "closed":
                self._client.sendall(f"{BANNER}\r\n".encode())
            case "timeout":
                while self._client.recv(1024):
                    pass  # until the visitor gives up or the server stops
            case _:
                raise ValueError(f"no such door: {door}")

    def _serve(self, *, deaf: bool) -> None:
        self._transport = transport = paramiko.Transport(self._client)
        transport.local_version = BANNER
        transport.set_log_channel(LOG)
        transport.add_server_key(self._server.key)
        transport.set_subsystem_handler("sftp", _Sftp, _Files)
        visitor = _Visitor(self._server.guest, self._server.lock, transport, deaf=deaf)
        try:
            transport.start_server(server=visitor)
            transport.join()
        finally:
            transport.close()
            visitor.wait()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        if self._transport:
            self._transport.close()
        self.join(END_TIMEOUT)


class _Visitor(paramiko.ServerInterface):
    """What one connection may do: log in by key, then commands, shells and SFTP."""

    def __init__(self, guest: Guest, lock: Lock, transport: paramiko.Transport, *, deaf: bool) -> None:
        self.guest, self.lock = guest, lock
        self.user = ""
        self._transport, self._deaf = transport, deaf
        self._terminals: set[int] = set()  # channels with a terminal at the other end
        self._threads: list[threading.Thread] = []
        self._asking = threading.Lock()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        with self.lock:
            welcome = not self._deaf and self.guest.accepts(username, key_line(key))
        self.user = username
        return AUTH_SUCCESSFUL if welcome else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes,
    ) -> bool:
        self._terminals.add(channel.get_id())
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._begin(channel, lambda: self._execute(channel, to_text(command)))
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        self._begin(channel, lambda: self._converse(channel))
        return True

    def wait(self) -> None:
        """Until everything that was begun has ended; call it when the transport is closed."""
        for thread in self._threads:
            thread.join(END_TIMEOUT)

    def _begin(self, channel: paramiko.Channel, work: Callable[[], int]) -> None:
        thread = threading.Thread(target=self._work, args=(channel, work), name="sandbox-ssh-work", daemon=True)
        self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
        thread.start()

    def _work(self, channel: paramiko.Channel, work: Callable[[], int]) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), contextlib.closing(channel):
            with self._asking:
                # Our "yes" to the request leaves only after check_channel_*_request has returned, and a
                # client that sees output or the end before it is confused. The answer to a question of
                # our own can only be read after that, so once it is here the "yes" is on its way.
                self._transport.global_request("keepalive@openssh.com", wait=True)
            channel.send_exit_status(work())

    def _run(self, command: str, stdin: bytes = b"") -> Result:
        with self.lock:
            return self.guest.run(self.user, command, stdin)

    def _execute(self, channel: paramiko.Channel, command: str) -> int:
        result = self._run(command, _all_of(channel) if self.guest.reads_stdin(command) else b"")
        has_terminal = channel.get_id() in self._terminals
        channel.sendall(_for_terminal(result.stdout + result.stderr) if has_terminal else to_bytes(result.stdout))
        if result.stderr and not has_terminal:
            channel.sendall_stderr(to_bytes(result.stderr))
        return result.exit_status

    def _converse(self, channel: paramiko.Channel) -> int:
        """A shell: a prompt, a line, an answer, until `exit` or the end of the input."""
        echo = channel.get_id() in self._terminals
        prompt = f"{self.user}@{self._run('hostname').stdout.strip()}:~{'#' if self.user == 'root' else '$'} "
        status = 0
        while True:
            channel.sendall(prompt.encode() if echo else b"")
            line = _read_line(channel, echo=echo)
            if line is None:
                return status
            result = self._run(line)
            status = result.exit_status if line.strip() else status
            text = result.stdout + result.stderr
            channel.sendall(_for_terminal(text) if echo else to_bytes(text))
            if line.split()[:1] in (["exit"], ["logout"]):
                return status


def _all_of(channel: paramiko.Channel) -> bytes:
    return b"".join(iter(lambda: channel.recv(32768), b""))


def _for_terminal(text: str) -> bytes:
    return to_bytes(text.replace("\n", "\r\n"))


def _read_line(channel: paramiko.Channel, *, echo: bool) -> str | None:
    """One line, edited as a terminal would: backspace, ^C, ^D. None at the end of the input."""
    typed = bytearray()
    while byte := channel.recv(1):
        shown = byte
        match byte:
            case b"\r" | b"\n":
                channel.sendall(b"\r\n" if echo else b"")
                return to_text(bytes(typed))
            case b"\x03":
                typed.clear()
                channel.sendall(b"^C\r\n" if echo else b"")
                return ""
            case b"\x04":
                if not typed:
                    return None
                shown = b""
            case b"\x7f" | b"\x08":
                shown = b"\b \b" if typed else b""
                del typed[-1:]
            case b"\x1b":
                channel.recv(2)  # an arrow key: there is no history to walk
                shown = b""
            case _:
                typed += byte
        channel.sendall(shown if echo else b"")
    return to_text(bytes(typed)) if typed else None


# --- SFTP ---------------------------------------------------------------------------------------------


class _Sftp(paramiko.SFTPServer):
    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        super().start_subsystem(name, transport, channel)
        with contextlib.suppress(OSError):
            channel.send_exit_status(0)  # OpenSSH's scp fails without it, although every byte arrived


class _Files(paramiko.SFTPServerInterface):
    """The guest's files for SFTP and for the `scp` of today, which speaks SFTP."""

    def __init__(self, server: _Visitor, *args: object, **kwargs: object) -> None:
        super().__init__(server, *args, **kwargs)
        self._guest, self._user, self._lock = server.guest, server.user, server.lock

    def canonicalize(self, path: str) -> str:
        return self._guest.resolve(self._user, path)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        with self._lock:
            try:
                return self._attributes(self.canonicalize(path))
            except OSError as error:
                return _code(error)

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        return self.stat(path)

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        path = self.canonicalize(path)
        with self._lock:
            try:
                names = self._guest.list_directory(path)
            except OSError as error:
                return _code(error)
            return [self._attributes(f"{path.rstrip('/')}/{name}", name) for name in names]

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        path = self.canonicalize(path)
        with self._lock:
            try:
                content = self._opened(path, flags)
            except OSError as error:
                return _code(error)
        return _Handle(flags, to_bytes(content), lambda data: self._keep(path, data))

    def remove(self, path: str) -> int:
        with self._lock:
            gone = self._guest.files.pop(self.canonicalize(path), None)
        return SFTP_NO_SUCH_FILE if gone is None else SFTP_OK

    def rename(self, oldpath: str, newpath: str) -> int:
        old, new = self.canonicalize(oldpath), self.canonicalize(newpath)
        with self._lock:
            if old not in self._guest.files:
                return SFTP_NO_SUCH_FILE
            self._guest.files[new] = self._guest.files.pop(old)
        return SFTP_OK

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        return self.rename(oldpath, newpath)

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        with self._lock:
            self._guest.make_directory(self.canonicalize(path))
        return SFTP_OK

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return SFTP_OK  # modes and times are not kept

    def _opened(self, path: str, flags: int) -> str:
        """The content to begin with. Raises OSError. Writing is tried now, as a close cannot fail."""
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return self._guest.read(path)
        exists = path in self._guest.files
        if not exists and not flags & os.O_CREAT:
            raise FileNotFoundError
        if exists and flags & os.O_EXCL:
            raise FileExistsError
        content = self._guest.files[path] if exists and not flags & os.O_TRUNC else ""
        self._guest.write(path, content)
        return content

    def _keep(self, path: str, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._guest.write(path, to_text(data))

    def _attributes(self, path: str, name: str = "") -> paramiko.SFTPAttributes:
        """Raises FileNotFoundError."""
        if self._guest.is_directory(path):
            return _attributes(stat.S_IFDIR | 0o755, 4096, name)
        return _attributes(stat.S_IFREG | 0o644, len(to_bytes(self._guest.read(path))), name)


class _Handle(paramiko.SFTPHandle):
    """An open file: a copy in memory, kept at the close if it was opened for writing."""

    def __init__(self, flags: int, content: bytes, keep: Callable[[bytes], None]) -> None:
        super().__init__(flags)
        self._keep = keep if flags & (os.O_WRONLY | os.O_RDWR) else None
        self._buffer = self.readfile = self.writefile = io.BytesIO(content)
        if flags & os.O_APPEND:
            self._buffer.seek(0, os.SEEK_END)

    def stat(self) -> paramiko.SFTPAttributes:
        return _attributes(stat.S_IFREG | 0o644, len(self._buffer.getvalue()))

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        return SFTP_OK

    def close(self) -> None:
        if self._keep:
            self._keep(self._buffer.getvalue())
        super().close()


def _code(error: OSError) -> int:
    return SFTP_NO_SUCH_FILE if isinstance(error, FileNotFoundError) else SFTP_FAILURE


def _attributes(mode: int, size: int, name: str = "") -> paramiko.SFTPAttributes:
    found = paramiko.SFTPAttributes()
    found.filename = name
    found.st_mode, found.st_size = mode, size
    found.st_uid = found.st_gid = found.st_atime = found.st_mtime = 0
    return found
