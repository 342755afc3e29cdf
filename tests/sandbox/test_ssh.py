"""A sandbox machine over real sockets on the loopback, seen with the client that the product uses."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from providers.base import SshTarget
from providers.sandbox.guest import Guest
from providers.sandbox.ssh import SshServer, make_host_key
from sessions import hardware, ssh

PATIENCE = 10.0  # seconds that a test waits at most for an event; none should need them

Connect = Callable[..., paramiko.SSHClient]


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return make_host_key("a consumer")  # any Ed25519 key will do


@pytest.fixture
def guest(key: paramiko.PKey) -> Guest:
    public = f"{key.get_name()} {key.get_base64()}"
    return Guest("7001", "RTX 4090", 1, 24564, "12.8", users=("root", "user"), authorized_keys=[public])


class Door:
    def __init__(self) -> None:
        self.answer = "open"

    def __call__(self) -> str:
        return self.answer


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def server(guest: Guest, door: Door) -> Iterator[SshServer]:
    server = SshServer(guest, door, seed="7001")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(server: SshServer, key: paramiko.PKey) -> Iterator[Connect]:
    clients: list[paramiko.SSHClient] = []

    def connected(user: str = "root", **changes: object) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        clients.append(client)
        options = {"pkey": key, "look_for_keys": False, "allow_agent": False, "timeout": PATIENCE} | changes
        client.connect("127.0.0.1", server.port, user, **options)
        return client

    yield connected
    for client in clients:
        client.close()


def read_until(channel: paramiko.Channel, wanted: bytes) -> bytes:
    channel.settimeout(PATIENCE)
    seen = b""
    while wanted not in seen:
        chunk = channel.recv(4096)
        assert chunk, f"the channel ended after {seen!r}"
        seen += chunk
    return seen


# --- Commands -----------------------------------------------------------------------------------------


def test_our_own_runner_finds_the_gpu(server: SshServer, guest: Guest) -> None:
    private, public = ssh.make_key_pair("gpu-shopper")
    guest.authorized_keys.append(public)
    target = SshTarget("127.0.0.1", server.port, "root")
    visit = ssh.run(target, private, [hardware.QUERY, hardware.CUDA, hardware.DISK], host_key=server.host_key)
    assert [output.exit_status for output in visit.outputs] == [0, 0, 0]
    assert hardware.gpus(visit.outputs[0].stdout)[0].name == "NVIDIA GeForce RTX 4090"
    assert visit.host_key == server.host_key


def test_status_output_and_errors_arrive_apart(connect: Connect) -> None:
    _, stdout, stderr = connect().exec_command("echo fine; nonsense", timeout=PATIENCE)
    assert stdout.read() == b"fine\n"
    assert b"nonsense: command not found" in stderr.read()
    assert stdout.channel.recv_exit_status() == 127


def test_input_reaches_the_command(connect: Connect, guest: Guest) -> None:
    stdin, stdout, _ = connect().exec_command("cat > note", timeout=PATIENCE)
    stdin.write(b"hello")
    stdin.channel.shutdown_write()
    assert stdout.channel.recv_exit_status() == 0
    assert guest.files["/root/note"] == "hello"


def test_a_command_that_reads_nothing_does_not_wait_for_the_end_of_input(connect: Connect) -> None:
    _, stdout, _ = connect().exec_command("true", timeout=PATIENCE)  # stdin stays open
    assert stdout.channel.recv_exit_status() == 0


def test_many_commands_run_at_once_over_one_connection(connect: Connect) -> None:
    client = connect()
    answers = [client.exec_command(f"echo {i}", timeout=PATIENCE)[1] for i in range(8)]
    assert [answer.read() for answer in answers] == [f"{i}\n".encode() for i in range(8)]


# --- Keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["root", "user"])
def test_the_key_logs_in_as_each_user_of_the_machine(connect: Connect, user: str) -> None:
    assert connect(user).exec_command("whoami", timeout=PATIENCE)[1].read() == f"{user}\n".encode()


def test_another_key_is_refused(connect: Connect) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        connect(pkey=make_host_key("a stranger"))


def test_a_user_that_the_machine_lacks_is_refused(connect: Connect) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        connect("admin")


def test_no_password_logs_in(connect: Connect) -> None:
    with pytest.raises(paramiko.BadAuthenticationType) as refusal:
        connect(pkey=None, password="")
    assert refusal.value.allowed_types == ["publickey"]


def test_nobody_logs_in_without_proof(server: SshServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        transport = paramiko.Transport(connection)
        transport.start_client(timeout=PATIENCE)
        with pytest.raises(paramiko.BadAuthenticationType):
            transport.auth_none("root")
        with pytest.raises(paramiko.SSHException):
            transport.open_session(timeout=PATIENCE)
        transport.close()


def test_a_key_that_is_taken_away_works_no_more(connect: Connect, guest: Guest) -> None:
    connect().close()
    guest.authorized_keys.clear()
    with pytest.raises(paramiko.AuthenticationException):
        connect()


def test_the_host_key_follows_from_the_seed(guest: Guest) -> None:
    keys = [make_host_key(seed).get_base64() for seed in ("a", "a", "b", "", "")]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


# --- The door -----------------------------------------------------------------------------------------


def visit(server: SshServer) -> bytes:
    """What a visitor reads before the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        return connection.makefile("rb").read()


def test_a_refusing_door_resets_the_connection(server: SshServer, door: Door) -> None:
    door.answer = "refused"
    with pytest.raises(ConnectionError):
        visit(server)


def test_a_closing_door_ends_after_the_banner(server: SshServer, door: Door) -> None:
    door.answer = "closed"
    assert visit(server) == b"SSH-2.0-OpenSSH_9.6\r\n"


def test_a_mute_door_says_nothing_until_the_visitor_goes(server: SshServer, door: Door) -> None:
    door.answer = "timeout"
    with socket.create_connection(("127.0.0.1", server.port), 0.3) as connection, pytest.raises(TimeoutError):
        connection.recv(1)


@pytest.mark.parametrize("answer", ["refused", "closed"])
def test_our_own_runner_calls_a_shut_door_unreachable(
    server: SshServer, door: Door, answer: str, key: paramiko.PKey
) -> None:
    door.answer = answer
    private, _ = ssh.make_key_pair("gpu-shopper")
    with pytest.raises(ssh.Unreachable):
        ssh.run(SshTarget("127.0.0.1", server.port, "root"), private, ["true"])


def test_a_deaf_door_refuses_the_right_key(connect: Connect, door: Door) -> None:
    door.answer = "no_auth"
    with pytest.raises(paramiko.AuthenticationException):
        connect()


def test_a_door_that_opens_later_lets_in(connect: Connect, door: Door) -> None:
    door.answer = "refused"
    with pytest.raises((OSError, EOFError, paramiko.SSHException)):
        connect()
    door.answer = "open"
    assert connect().exec_command("true", timeout=PATIENCE)[1].channel.recv_exit_status() == 0


# --- The interactive shell ----------------------------------------------------------------------------


def test_a_person_can_log_in_look_and_leave(connect: Connect) -> None:
    channel = connect().invoke_shell()
    read_until(channel, b"root@sandbox-7001:~# ")
    channel.send(b"nvidia-smX\x7fi\r")
    assert b"NVIDIA GeForce RTX 4090" in read_until(channel, b"~# ")
    channel.send(b"exit 3\r")
    assert channel.recv_exit_status() == 3


def test_control_c_forgets_the_line_and_control_d_leaves(connect: Connect) -> None:
    channel = connect().invoke_shell()
    read_until(channel, b"~# ")
    channel.send(b"exit 9\x03")
    read_until(channel, b"^C\r\n")
    channel.send(b"\x04")
    assert channel.recv_exit_status() == 0


def test_a_script_can_be_piped_into_a_shell_without_terminal(connect: Connect) -> None:
    channel = connect().get_transport().open_session(timeout=PATIENCE)
    channel.settimeout(PATIENCE)
    channel.invoke_shell()
    channel.sendall(b"echo one\nwhoami")
    channel.shutdown_write()
    assert channel.makefile("rb").read() == b"one\nroot\n"


# --- SFTP ---------------------------------------------------------------------------------------------


def test_a_binary_file_survives_the_way_up_and_down(connect: Connect) -> None:
    data = bytes(range(256)) * 1000
    sftp = connect().open_sftp()
    sftp.putfo(io.BytesIO(data), "model.bin")  # compares the sizes itself
    back = io.BytesIO()
    sftp.getfo("model.bin", back)
    assert back.getvalue() == data


def test_an_uploaded_file_is_there_for_commands(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("echo hi\n")
    client = connect("user")
    client.open_sftp().put(str(tmp_path / "run.sh"), "run.sh")
    assert client.exec_command("cat /home/user/run.sh", timeout=PATIENCE)[1].read() == b"echo hi\n"


def test_directories_are_made_listed_and_cleared(connect: Connect) -> None:
    sftp = connect().open_sftp()
    sftp.mkdir("data")
    with sftp.open("data/a", "w") as file:
        file.write("1")
    with sftp.open("data/a", "a") as file:
        file.write("2")
    sftp.rename("data/a", "data/b")
    assert sftp.listdir("data") == ["b"]
    assert sftp.open("data/b").read() == b"12"
    assert sftp.stat("data/b").st_size == 2
    sftp.remove("data/b")
    assert sftp.listdir("data") == []


def test_a_finished_transfer_has_an_exit_status(connect: Connect) -> None:
    """OpenSSH's scp reports a failure otherwise."""
    sftp = connect().open_sftp()
    channel = sftp.get_channel()
    sftp.putfo(io.BytesIO(b"x"), "f")
    channel.shutdown_write()
    assert channel.status_event.wait(PATIENCE)
    assert channel.exit_status == 0


def test_a_missing_file_is_missing(connect: Connect) -> None:
    sftp = connect().open_sftp()
    with pytest.raises(FileNotFoundError):
        sftp.open("nowhere")
    with pytest.raises(FileNotFoundError):
        sftp.stat("nowhere")


def test_a_full_disk_refuses_an_upload(connect: Connect, guest: Guest) -> None:
    guest.faults.add("disk.full")
    with pytest.raises(OSError):
        connect().open_sftp().open("f", "w")
    assert not guest.files


# --- The end ------------------------------------------------------------------------------------------


def test_stop_ends_visits_and_threads_and_frees_the_port(guest: Guest, key: paramiko.PKey, door: Door) -> None:
    before = set(threading.enumerate())
    server = SshServer(guest, door)
    server.start()
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect("127.0.0.1", server.port, "root", pkey=key, look_for_keys=False, allow_agent=False)
    channel = client.invoke_shell()
    read_until(channel, b"~# ")
    door.answer = "timeout"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as mute:
        server.stop()
        assert mute.recv(1) == b""
    assert channel.recv(1) == b""
    client.close()
    assert not [t for t in threading.enumerate() if t not in before and t.name.startswith("sandbox-ssh")]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def test_only_the_loopback_is_served(server: SshServer) -> None:
    assert server._listener.getsockname()[0] == "127.0.0.1"
