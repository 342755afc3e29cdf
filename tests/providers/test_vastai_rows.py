"""What Vast.ai's rows mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from providers.base import MachineState, NotUnderstood, PriceParts, SshTarget
from providers.http import parsed
from providers.vastai import rows
from tests.providers.vast import instance, offer, stopped

NOW = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)
S = MachineState


def exact(row):
    """A row as the transport gives it: fractions are Decimals."""
    return parsed(json.dumps(row).encode())


# --- States -------------------------------------------------------------------------------------------

LOADING = {"actual_status": "loading", "cur_state": "running", "next_state": "running", "ports": None}
CREATED = {"actual_status": "created", "cur_state": "stopped"}
CDI = (
    "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
    "create failed: … failed to inject CDI devices: unresolvable CDI devices D.ab/gpu=0: unknown\n"
    "Error: failed to start containers: C.38120457"
)

VERDICTS = {
    "just made": (instance(actual_status=None, status_msg=None), S.STARTING),
    "pulls": (instance(**LOADING, status_msg="4c7d45f7c63c: Download complete"), S.STARTING),
    "pulls, with the books at stopped": (
        instance(**LOADING | {"cur_state": "stopped"}, status_msg="4c7d: Extracting"),
        S.STARTING,
    ),
    "created": (instance(**CREATED, status_msg=""), S.STARTING),
    "waits in the schedule": (instance(actual_status="scheduling", status_msg=""), S.STARTING),
    "a build log says error": (instance(**LOADING, status_msg="V220614a: error during apt-get update!"), S.STARTING),
    "a hiccup that recovers": (
        instance(**LOADING, status_msg="80ee: error pulling image configuration, Retrying in 5 seconds"),
        S.STARTING,
    ),
    "broken words but still trying": (
        instance(**LOADING, status_msg="proxyconnect tcp: refused, Retrying in 5 seconds"),
        S.STARTING,
    ),
    "runs": (instance(), S.UP),
    "runs, though the text is an old complaint": (instance(status_msg=CDI), S.UP),
    "runs, though the books flip": (instance(cur_state="stopped"), S.UP),
    "container runtime": (instance(**CREATED, status_msg=CDI), S.BROKEN),
    "broken GPU": (instance(**CREATED, status_msg="Error: GPU error, unable to start instance."), S.BROKEN),
    "CUDA too old": (
        instance(**CREATED, status_msg="nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8"),
        S.BROKEN,
    ),
    "registry unreachable": (
        instance(**LOADING, status_msg="error pulling image configuration: download failed after attempts=6: read tcp"),
        S.BROKEN,
    ),
    "proxy": (
        instance(**LOADING, status_msg="proxyconnect tcp: dial tcp 127.0.0.1:7890: connect: connection refused"),
        S.BROKEN,
    ),
    "no daemon": (instance(**CREATED, status_msg="Cannot connect to the Docker daemon at unix:///…"), S.BROKEN),
    "image missing": (
        instance(**CREATED, status_msg="Error response from daemon: manifest for X not found: manifest unknown"),
        S.BROKEN,
    ),
    "image private": (instance(**CREATED, status_msg="pull access denied for X"), S.BROKEN),
    "outbid, ended or out of credit": (stopped(), S.DOWN),
    "the text does not help": (stopped(status_msg="success, running nvidia/cuda/ssh"), S.DOWN),
    "fresh, in loading with all books at stopped": (stopped(actual_status="loading"), S.DOWN),
    "outbid a moment ago": (instance(intended_status="stopped"), S.DOWN),
    "exited": (instance(actual_status="exited"), S.DOWN),
    "stopped though wanted": (instance(actual_status="stopped"), S.DOWN),
    "window over": (instance(actual_status="created", cur_state="stopped", end_date=1790000000.0), S.DOWN),
    "host lost": (instance(actual_status="offline"), S.DOWN),
    "no heartbeat": (instance(actual_status="unknown"), S.DOWN),
    "on its way out": (instance(actual_status="destroyed"), S.LEAVING),
    "terminated": (instance(actual_status="terminated"), S.LEAVING),
    "frozen": (instance(actual_status="frozen"), S.STARTING),
    "reboots": (instance(actual_status="rebooting"), S.STARTING),
    "restarts": (instance(actual_status="restarting"), S.STARTING),
    "a word of tomorrow": (instance(actual_status="hibernating"), S.UNKNOWN),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_states_and_text_together_make_the_verdict(case):
    row, state = VERDICTS[case]
    assert rows.verdict(exact(row), NOW) is state


@pytest.mark.parametrize("text", rows.BROKEN_TEXTS)
def test_each_text_that_means_broken_does_so_only_before_the_machine_runs(text):
    assert rows.verdict(instance(**CREATED, status_msg=f"x {text} y"), NOW) is S.BROKEN
    assert rows.verdict(instance(status_msg=f"x {text} y"), NOW) is S.UP


@pytest.mark.parametrize("junk", [None, 7, [], {}, True])
def test_junk_in_every_field_is_no_crash(junk):
    row = dict.fromkeys(instance(), junk) | {"id": 1}
    machine = rows.machine(row, NOW)
    assert machine.ssh_targets == ()
    assert machine.state in (S.STARTING, S.UNKNOWN)


# --- Machines -----------------------------------------------------------------------------------------


def test_a_machine_has_all_that_the_row_tells():
    machine = rows.machine(exact(instance()), NOW)
    assert machine.id == "38120457"
    assert machine.label == "gs-tag"
    assert machine.price == PriceParts(gpu=380_000, storage=10_000)
    assert machine.interruptible is False
    assert machine.host == "214906@198.51.100.23"
    assert machine.ends_at == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "env", [[["MY_THING", "consumers-5ecre7"], ["DEBUG", "1"], None], {"MY_THING": "consumers-5ecre7"}]
)
def test_a_status_that_quotes_the_command_line_shows_no_value_of_env(env):
    text = "docker run -e MY_THING consumers-5ecre7 jupyters-5ecre7: exit 1"
    told = rows.status(instance(extra_env=env, status_msg=text))
    assert told == "running: docker run -e MY_THING [redacted] [redacted]: exit 1"


def test_the_direct_address_comes_before_the_proxy():
    assert rows.ssh_targets(instance()) == (
        SshTarget("198.51.100.23", 41022, "root"),
        SshTarget("ssh7.vast.ai", 20456, "root"),
    )


@pytest.mark.parametrize("ports", [None, {}, [41022], {"22/tcp": None}, {"22/tcp": [{"HostPort": "x"}]}])
def test_without_a_mapped_port_there_is_the_proxy(ports):
    assert rows.ssh_targets(instance(ports=ports)) == (SshTarget("ssh7.vast.ai", 20456, "root"),)


def test_beside_jupyter_ssh_has_the_next_port():
    row = instance(ports=None, image_runtype="jupyter_direc ssh_direc ssh_proxy")
    assert rows.ssh_targets(row) == (SshTarget("ssh7.vast.ai", 20457, "root"),)


@pytest.mark.parametrize(
    ("port", "runtype", "found"), [(65535, "ssh", [65535]), (65535, "jupyter ssh", []), (65536, "ssh", [])]
)
def test_the_highest_port_is_one_and_the_next_is_none(port, runtype, found):
    row = instance(ports=None, ssh_port=port, image_runtype=runtype)
    assert [target.port for target in rows.ssh_targets(row)] == found


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "a;b", "", None, "x" * 300])
def test_what_is_no_host_name_is_no_target(name):
    assert rows.ssh_targets(instance(ports=None, ssh_host=name)) == ()


def test_no_label_told_is_not_a_label_that_is_empty():
    row = instance()
    assert rows.machine(row | {"label": None}, NOW).label == ""
    del row["label"]
    assert rows.machine(row, NOW).label is None


@pytest.mark.parametrize("found", [None, "38120457", True, 0, 1.5])
def test_a_row_without_an_id_is_not_understood(found):
    with pytest.raises(NotUnderstood):
        rows.machine(instance(id=found), NOW)


def test_a_machine_shows_no_secret_of_its_row():
    row = instance(status_msg="jupyter_token=jupyters-5ecre7 \x1b[31m" + "é" * 500)
    machine = rows.machine(row, NOW)
    assert "5ecre7" not in repr(machine)
    assert len(machine.status) <= rows.STATUS_LENGTH
    assert machine.status.isprintable()


def test_a_price_with_a_part_that_is_not_told_is_none():
    assert rows.price(exact(instance(storage_cost=None))) is None
    assert rows.price(exact(instance(dph_base=-1))) is None


# --- Offers -------------------------------------------------------------------------------------------


def test_a_quote_has_our_units():
    quote = rows.quote(exact(offer()), disk_gb=40)
    assert quote is not None
    assert (quote.provider_id, quote.gpu_name, quote.vram_gb) == ("41873205", "RTX 4090", 24)
    assert (quote.location, quote.country, quote.cuda_version) == ("Quebec", "CA", "12.8")
    assert (quote.cpu_cores, quote.ram_gb, quote.disk_gb) == (12, 62, 611)
    assert quote.max_duration_hours == pytest.approx(2197.28, abs=0.01)
    parts = quote.rates.parts(40)
    assert parts == PriceParts(gpu=380_000, storage=10_000)


@pytest.mark.parametrize(
    "change",
    [
        {"rentable": False},
        {"rented": True},
        {"is_bid": True},
        {"verification": "unverified"},
        {"verification": None},
        {"direct_port_count": 1},
        {"disk_space": 39.9},
        {"cpu_cores": None},
        {"dph_base": None},
        {"dph_base": 0},
        {"num_gpus": 0},
        {"gpu_name": None},
        {"id": None, "ask_contract_id": None},
    ],
    ids=str,
)
def test_a_filter_that_was_not_honoured_is_applied_here(change):
    assert rows.quote(exact(offer(**change)), disk_gb=40) is None


@pytest.mark.parametrize(("place", "country"), [(None, ""), (", US", "US"), ("Quebec, CA", "CA"), ("Mars", "")])
def test_a_country_is_two_letters_or_not_known(place, country):
    quote = rows.quote(exact(offer(geolocation=place)), disk_gb=8)
    assert quote is not None
    assert quote.country == country


def test_a_host_that_is_installed_anew_is_the_same_host():
    assert rows.host(offer(machine_id=1)) == rows.host(offer(machine_id=2))
    assert rows.host(offer(host_id=None)) == "machine-51877"
    assert rows.host({}) == ""


def test_storage_that_is_not_told_has_no_price():
    quote = rows.quote(exact(offer(storage_cost=None)), disk_gb=8)
    assert quote is not None
    assert quote.rates.parts(8) is None


# --- Charges ------------------------------------------------------------------------------------------

START = 1790851382


def charge(**changes):
    line = {"start": START, "end": START + 3600, "source": None, "metadata": {}, "items": []}
    return exact(
        line
        | {
            "type": "instance",
            "source": "instance-38120457",
            "amount": 1.318,
            "metadata": {"label": "gs-tag"},
            "items": [
                line | {"type": "gpu", "amount": 1.235},
                line | {"type": "disk", "amount": 0.033},
                line | {"type": "bwd", "amount": 0.05},
            ],
        }
        | changes
    )


def test_a_charge_is_split_into_its_lines():
    found = list(rows.charges(charge()))
    assert [(line.kind, line.amount) for line in found] == [
        ("gpu", 1_235_000),
        ("storage", 33_000),
        ("network", 50_000),
    ]
    assert {(line.machine_id, line.label) for line in found} == {("38120457", "gs-tag")}
    assert found[0].ended_at - found[0].started_at == timedelta(hours=1)


def test_what_the_lines_leave_of_the_amount_is_kept():
    found = list(rows.charges(charge(items=[])))
    assert [(line.kind, line.amount) for line in found] == [("other", 1_318_000)]
    assert sum(line.amount for line in rows.charges(charge(amount=2))) == 2_000_000


@pytest.mark.parametrize("change", [{"source": None}, {"source": "volume-1"}, {"start": None}, {"amount": "1"}])
def test_a_charge_that_can_not_be_placed_is_not_understood(change):
    with pytest.raises(NotUnderstood):
        list(rows.charges(charge(**change)))


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), Decimal("NaN"), Decimal("1e400"), 10**20])
def test_only_a_plain_number_is_one(value):
    assert rows.number(value) is None
