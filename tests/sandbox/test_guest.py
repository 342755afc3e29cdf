"""The inside of a machine answers as a real one would, to people and to our own checks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from providers import deadman
from providers.sandbox.guest import Guest, to_bytes, to_text
from providers.sandbox.nvidia_smi import OTHER_VRAM_MB, driver_name
from sessions import hardware

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOne"


@pytest.fixture
def guest() -> Guest:
    return Guest("7001", "RTX 4090", 2, 24564, "12.8", users=("root", "user"), authorized_keys=[KEY])


def gpus(guest: Guest) -> list[hardware.Gpu]:
    return hardware.gpus(guest.run("root", hardware.QUERY).stdout)


# --- Keys ---------------------------------------------------------------------------------------------


def test_a_key_is_accepted_whatever_its_comment(guest: Guest) -> None:
    guest.authorized_keys = [f"{KEY} laptop"]
    assert guest.accepts("root", KEY)
    assert guest.accepts("user", f"{KEY} somebody@else")


@pytest.mark.parametrize(
    ("user", "key"),
    [("root", f"{KEY}x"), ("root", KEY.replace("ssh-ed25519", "ssh-rsa")), ("admin", KEY), ("root", "")],
)
def test_another_key_or_user_is_not_accepted(guest: Guest, user: str, key: str) -> None:
    assert not guest.accepts(user, key)


# --- GPUs ---------------------------------------------------------------------------------------------


def test_our_own_hardware_check_finds_what_was_rented(guest: Guest) -> None:
    cuda = hardware.cuda_version(guest.run("root", hardware.CUDA).stdout)
    disk_gb = hardware.disk_total_gb(guest.run("root", hardware.DISK).stdout)
    assert gpus(guest) == [hardware.Gpu("NVIDIA GeForce RTX 4090", 24564, "570.133.20", 0)] * 2
    assert cuda == "12.8"
    assert disk_gb == pytest.approx(50)


def test_a_missing_gpu_shows(guest: Guest) -> None:
    guest.faults.add("gpu.fewer")
    assert len(gpus(guest)) == 1


def test_one_gpu_less_of_one_is_none(guest: Guest) -> None:
    guest.gpu_count = 1
    guest.faults.add("gpu.fewer")
    result = guest.run("root", hardware.QUERY)
    assert (result.exit_status, result.stdout) == (6, "No devices were found\n")


def test_another_model_shows_in_every_form(guest: Guest) -> None:
    guest.faults.add("gpu.other")
    assert {(gpu.name, gpu.vram_mib) for gpu in gpus(guest)} == {("NVIDIA GeForce GTX 1080 Ti", OTHER_VRAM_MB)}
    assert "1080 Ti" in guest.run("root", "nvidia-smi -L").stdout
    assert "4090" not in guest.run("root", "nvidia-smi").stdout


def test_half_the_memory_shows(guest: Guest) -> None:
    guest.faults.add("gpu.vram")
    assert gpus(guest)[0].vram_mib == 12282


def test_an_old_driver_shows_with_its_cuda_version(guest: Guest) -> None:
    guest.faults.add("cuda.old")
    assert hardware.cuda_version(guest.run("root", "nvidia-smi").stdout) == "11.4"
    assert gpus(guest)[0].driver.startswith("470.")


@pytest.mark.parametrize(("fault", "status"), [("gpu.absent", 127), ("gpu.driver", 9)])
def test_without_a_working_driver_there_is_no_answer(guest: Guest, fault: str, status: int) -> None:
    guest.faults.add(fault)
    result = guest.run("root", hardware.QUERY)
    assert result.exit_status == status
    with pytest.raises(ValueError):
        hardware.gpus(result.stdout or "?")


def test_a_fault_that_nobody_knows_changes_nothing(guest: Guest) -> None:
    before = guest.run("root", "nvidia-smi")
    guest.faults.add("gpu.of.the.future")
    assert guest.run("root", "nvidia-smi") == before


def test_utilisation_may_be_computed_at_each_look(guest: Guest) -> None:
    readings = iter([0, 97])
    guest.gpu_utilisation = lambda: next(readings)
    assert [gpus(guest)[0].busy_percent, gpus(guest)[0].busy_percent] == [0, 97]


def test_a_query_has_a_header_and_units_unless_told_otherwise(guest: Guest) -> None:
    guest.gpu_count = 1
    stdout = guest.run("root", "nvidia-smi --query-gpu=index,memory.total,utilization.gpu --format=csv").stdout
    assert stdout == "index, memory.total [MiB], utilization.gpu [%]\n0, 24564 MiB, 0 %\n"


def test_an_unknown_field_is_refused(guest: Guest) -> None:
    result = guest.run("root", "nvidia-smi --query-gpu=name,colour --format=csv")
    assert result.exit_status == 2
    assert '"colour"' in result.stdout


def test_each_gpu_has_its_own_lasting_uuid(guest: Guest) -> None:
    first, again = (guest.run("root", "nvidia-smi -L").stdout for _ in range(2))
    uuids = {line.split("UUID: ")[1] for line in first.splitlines()}
    assert first == again
    assert len(uuids) == 2


def test_the_table_is_straight(guest: Guest) -> None:
    lines = guest.run("root", "nvidia-smi").stdout.splitlines()
    assert {len(line) for line in lines} == {91}


@pytest.mark.parametrize(
    ("menu", "driver"),
    [
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090 PCIe 24GB", "NVIDIA GeForce RTX 4090"),
        ("RTX 6000Ada", "NVIDIA RTX 6000Ada"),
        ("RTX A6000", "NVIDIA RTX A6000"),
        ("H100 SXM", "NVIDIA H100 SXM"),
    ],
)
def test_the_driver_has_its_own_names(menu: str, driver: str) -> None:
    assert driver_name(menu) == driver


# --- Files --------------------------------------------------------------------------------------------


def test_what_is_written_can_be_read_back(guest: Guest) -> None:
    command = "mkdir -p /var/lib/x && printf '%s\\n' 1790000000 > /var/lib/x/deadline && cat /var/lib/x/deadline"
    assert guest.run("root", command).stdout == "1790000000\n"
    assert guest.files == {"/var/lib/x/deadline": "1790000000\n"}


def test_input_goes_into_a_file_byte_by_byte(guest: Guest) -> None:
    data = bytes(range(256))
    guest.run("root", "cat > all", data)
    assert to_bytes(guest.run("root", "cat all").stdout) == data
    assert to_bytes(to_text(data)) == data


def test_appending_keeps_what_was_there(guest: Guest) -> None:
    assert guest.run("root", "echo a > f; echo b >> f; cat f").stdout == "a\nb\n"


def test_a_missing_file_is_an_error_with_the_usual_words(guest: Guest) -> None:
    result = guest.run("root", "cat /nowhere")
    assert result.exit_status == 1
    assert result.stderr == "cat: /nowhere: No such file or directory\n"


def test_a_missing_directory_refuses_the_file(guest: Guest) -> None:
    assert guest.run("root", "echo 1 > /no/such/file").exit_status == 1
    assert not guest.files


def test_a_full_disk_takes_nothing_and_keeps_the_old(guest: Guest) -> None:
    guest.files["/root/f"] = "old"
    guest.faults.add("disk.full")
    result = guest.run("root", "echo new > f")
    assert result.exit_status == 1
    assert "No space left on device" in result.stderr
    assert guest.files["/root/f"] == "old"
    assert "100%" in guest.run("root", "df -h").stdout


def test_a_small_disk_shows(guest: Guest) -> None:
    guest.faults.add("disk.small")
    assert hardware.disk_total_gb(guest.run("root", hardware.DISK).stdout) == pytest.approx(10)


def test_each_user_has_a_home_and_both_see_the_same_files(guest: Guest) -> None:
    guest.run("user", "echo hi > note")
    assert guest.run("root", "cat /home/user/note").stdout == "hi\n"
    assert guest.run("user", "echo $HOME ~/x").stdout == "/home/user /home/user/x\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("test -f /root/f", 0),
        ("[ -f /root/g ]", 1),
        ("test -d /root", 0),
        ("test -e /root/f", 0),
        ("test -d f", 1),
    ],
)
def test_files_can_be_tested_for(guest: Guest, command: str, status: int) -> None:
    guest.files["/root/f"] = "x"
    assert guest.run("root", command).exit_status == status


def test_a_file_is_moved_over_another(guest: Guest) -> None:
    assert guest.run("root", "echo 1 > a; echo 2 > b; mv b a; cat a; test -e b").stdout == "2\n"
    assert guest.run("root", "test -e b").exit_status == 1


# --- The dead man's switch ----------------------------------------------------------------------------

DEADLINE = datetime(2026, 9, 1, 12, tzinfo=UTC)


@pytest.fixture
def armed_guest(guest: Guest) -> Guest:
    guest.start_dead_man(int(DEADLINE.timestamp()))
    return guest


def deadline(guest: Guest) -> datetime | None:
    return deadman.parse_state(guest.run("user", deadman.read_back_command()).stdout)


def test_the_switch_is_rearmed_and_read_back_by_the_commands_that_we_use(armed_guest: Guest) -> None:
    assert deadline(armed_guest) == DEADLINE
    files = set(armed_guest.files)
    later = DEADLINE + timedelta(hours=1)
    assert armed_guest.run("user", deadman.rearm_command(later)).exit_status == 0
    assert deadline(armed_guest) == later
    assert set(armed_guest.files) == files


def test_a_machine_without_a_switch_has_none_and_gets_none(guest: Guest) -> None:
    assert deadline(guest) is None
    assert guest.run("root", deadman.rearm_command(DEADLINE)).exit_status == 1
    assert deadline(guest) is None


def test_a_dead_switch_is_not_taken_for_a_live_one(armed_guest: Guest) -> None:
    armed_guest.stop_dead_man()
    assert deadline(armed_guest) is None


def test_a_full_disk_leaves_the_old_deadline(armed_guest: Guest) -> None:
    armed_guest.faults.add("disk.full")
    assert armed_guest.run("root", deadman.rearm_command(DEADLINE + timedelta(hours=1))).exit_status == 1
    assert deadline(armed_guest) == DEADLINE


# --- The shell ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "stdout"),
    [
        ("true", 0, ""),
        ("false", 1, ""),
        ("", 0, ""),
        ("echo a; echo b", 0, "a\nb\n"),
        ("false && echo a", 1, ""),
        ("false && echo a || echo b", 0, "b\n"),
        ("true || echo a; echo b", 0, "b\n"),
        ("echo 'a; b' \"c && d\" e\\ f", 0, "a; b c && d e f\n"),
        ("echo one | cat", 0, "one\n"),
        ("echo $FLAVOUR '$FLAVOUR' ${FLAVOUR}!", 0, "mild $FLAVOUR mild!\n"),
        ("exit 3; echo no", 3, ""),
        ("echo x$(echo 'a b'; echo c)y \"$(whoami)\" '$(whoami)'", 0, "xa b\ncy root $(whoami)\n"),
        ("sh -c 'echo in && false' || echo out", 0, "in\nout\n"),
        ("nothing 2>/dev/null || echo none", 0, "none\n"),
        ("nothing > /dev/null 2>&1", 127, ""),
        ("printf 'a%sb\\n' 1 2", 0, "a1b\na2b\n"),
        ("whoami; id -u", 0, "root\n0\n"),
        ("sudo -n whoami", 0, "root\n"),
    ],
)
def test_simple_lines_do_what_a_shell_does(guest: Guest, command: str, status: int, stdout: str) -> None:
    guest.env["FLAVOUR"] = "mild"
    result = guest.run("root", command)
    assert (result.exit_status, result.stdout) == (status, stdout)


@pytest.mark.parametrize(
    ("redirection", "stdout", "stderr", "kept"),
    [
        ("> f 2>&1", "", "", "in\nno\n"),
        ("2>&1", "in\nno\n", "", None),
        ("2> f", "in\n", "", "no\n"),
        ("2>&1 > f", "no\n", "", "in\n"),
        (">> f", "", "no\n", "in\n"),
    ],
)
def test_streams_go_where_they_are_sent(
    guest: Guest, redirection: str, stdout: str, stderr: str, kept: str | None
) -> None:
    result = guest.run("root", f"sh -c 'echo in; cat no' {redirection}")
    no = "cat: no: No such file or directory\n"
    assert (result.stdout, result.stderr) == (stdout.replace("no\n", no), stderr.replace("no\n", no))
    assert guest.files.get("/root/f") == (kept and kept.replace("no\n", no))


def test_an_unknown_command_is_not_found(guest: Guest) -> None:
    result = guest.run("root", "systemctl status")
    assert (result.exit_status, result.stdout) == (127, "")
    assert "systemctl: command not found" in result.stderr


@pytest.mark.parametrize("command", ["echo 'open", "echo a >", "| cat"])
def test_a_line_that_is_no_command_is_a_syntax_error(guest: Guest, command: str) -> None:
    assert guest.run("root", command).exit_status == 2


def test_nothing_of_this_computer_can_be_read(guest: Guest) -> None:
    assert guest.run("root", "cat /etc/passwd").exit_status == 1
    assert "PATH" not in guest.run("root", "env").stdout


@pytest.mark.parametrize(
    ("command", "reads"),
    [
        ("cat > f", True),
        ("mkdir -p d && cat > d/f", True),
        ("sudo tee f", True),
        ("sh -c 'cat > f'", True),
        ("cat f", False),
        ("cat < f", False),
        ("echo a | cat", False),
        ("nvidia-smi", False),
        ("echo 'open", False),
    ],
)
def test_it_is_known_beforehand_which_commands_wait_for_input(guest: Guest, command: str, reads: bool) -> None:
    assert guest.reads_stdin(command) is reads
