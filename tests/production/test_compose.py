"""docker-compose.yml without Docker: it is well formed, and every name in it means something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.conf import settings as django_settings

from gpushopper import figures
from providers import clock
from tests.production.stack import COMPOSE, OWN, ROOT

DOCUMENTED = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
# Read by libraries, not by our settings.
OF_LIBRARIES = {"PROMETHEUS_MULTIPROC_DIR"}


def own_services() -> list[str]:
    return sorted(OWN)


def test_the_services_of_our_image_are_those_that_the_design_names() -> None:
    assert own_services() == ["auditor", "beat", "guardian", "migrate", "web", "worker-ending", "worker-living"]


@pytest.mark.parametrize("service", own_services())
def test_each_of_our_services_is_locked_down(service: str) -> None:
    told = OWN[service]
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["tmpfs"] == ["/tmp"]  # the only place that can be written


@pytest.mark.parametrize("service", own_services())
def test_each_variable_given_to_a_service_is_documented(service: str) -> None:
    assert set(OWN[service]["environment"]) - DOCUMENTED - OF_LIBRARIES == set()


def test_each_variable_that_compose_asks_for_is_documented() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", (ROOT / "docker-compose.yml").read_text()))
    assert asked
    assert asked - DOCUMENTED == set()


def test_each_documented_setting_is_read_somewhere() -> None:
    """A line in .env.example that nothing reads is a promise that nobody keeps."""
    sources = (
        "".join(path.read_text() for folder in ("gpushopper", "providers") for path in (ROOT / folder).rglob("*.py"))
        + (ROOT / "docker-compose.yml").read_text()
    )
    assert {name for name in DOCUMENTED if f'"{name}"' not in sources and f"${{{name}" not in sources} == set()


def test_every_queue_has_a_worker_and_ends_have_one_that_serves_nothing_slow() -> None:
    served = {service: _queues(service) for service in OWN if service.startswith("worker-")}
    assert sorted(queue for queues in served.values() for queue in queues) == sorted(django_settings.QUEUES)
    assert served["worker-ending"] == {"ending", "clock"}


def _queues(service: str) -> set[str]:
    words = OWN[service]["command"]
    return set(words[words.index("-Q") + 1].split(","))


def test_nothing_waits_for_a_service_that_is_not_there() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
    named = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} <= set(COMPOSE["volumes"])
    for path in (name for name in named if name.startswith(".")):
        assert (ROOT / path).exists(), path


def test_nothing_but_the_loopback_of_the_host_is_published() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_guardian_needs_no_broker() -> None:
    assert "redis" not in OWN["guardian"]["depends_on"]


# --- The image ---------------------------------------------------------------------------------------------


def copied() -> set[str]:
    lines = re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {word.rstrip("/") for line in lines for word in line.split()[:-1]}


def test_every_package_is_in_the_image_and_in_its_context() -> None:
    listed = yaml.safe_load(re.search(r"include = (\[.*?\])", (ROOT / "pyproject.toml").read_text())[1])  # type: ignore[index]
    packages = {name.rstrip("*") for name in listed}
    assert packages <= copied()
    context = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied() <= context


LOCKED = "--require-hashes --no-deps -r requirements/"


def test_the_image_installs_nothing_without_a_hash() -> None:
    locked, ourselves = re.findall(r"pip install ([^\n&\\]+)", (ROOT / "Dockerfile").read_text())
    assert locked.startswith(LOCKED)
    assert ourselves.startswith("--no-deps --no-build-isolation -e .")
    for requirement in _requirements():
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]


def test_nothing_is_resolved_while_installing() -> None:
    """A resolver may want a release that is newer than the lock, for an extra (`name[extra]`), and then refuses all."""
    installs = re.findall(r"\$\(PIP\) install ([^\n]+)", (ROOT / "Makefile").read_text())
    assert len(installs) == 3
    for install in installs:
        assert install.startswith((LOCKED, "--no-deps --no-build-isolation -e .")), install


def _requirements() -> Iterator[str]:
    text = (ROOT / "requirements/production.txt").read_text()
    yield from re.split(
        r"\n(?=[a-z0-9])", "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
    )


# --- Monitoring --------------------------------------------------------------------------------------------


@pytest.fixture
def shown(db: None) -> set[str]:
    """The names that /metrics can show, as Prometheus stores them."""
    names: set[str] = set()
    for family in figures.Figures(clock.now()).collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names.update(family.name + ending for ending in endings)
    return names


def alert_expressions() -> dict[str, str]:
    rules = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
    return {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


def panel_expressions() -> dict[str, str]:
    board = yaml.safe_load((ROOT / "deploy/grafana/dashboards/gpu-shopper.json").read_text())
    return {panel["title"]: target["expr"] for panel in board["panels"] for target in panel.get("targets", [])}


@pytest.mark.parametrize("what", [alert_expressions, panel_expressions])
def test_rules_and_panels_ask_only_for_figures_that_exist(what: Any, shown: set[str]) -> None:
    asked = {name for expression in what().values() for name in re.findall(r"\b(?:gpu|django)_\w+", expression)}
    assert len(asked) >= 6
    assert {name for name in asked if name.startswith("gpu_")} - shown == set()


def test_every_rule_says_what_it_means_and_where_to_look() -> None:
    rules = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "look")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"], rule["alert"]


def test_prometheus_loads_the_rules_and_asks_the_web_service() -> None:
    told = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    assert told["rule_files"] == ["alerts.yml"]
    assert told["scrape_configs"][0]["static_configs"][0]["targets"] == ["web:8080"]
    assert "web" in django_settings.ALLOWED_HOSTS or "*" in django_settings.ALLOWED_HOSTS
