"""Vast.ai's answers as they were seen, for the tests of its adapter."""

from __future__ import annotations

from typing import Any

BASE = "https://console.vast.ai"
INSTANCES = f"{BASE}/api/v1/instances/"
ONE = f"{BASE}/api/v0/instances/38120457/"
ASK = f"{BASE}/api/v0/asks/41873205/"
BUNDLES = f"{BASE}/api/v0/bundles/"
CHARGES = f"{BASE}/api/v0/charges/"
USER = f"{BASE}/api/v0/users/current/"
KEYS = f"{ONE}ssh/"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMGKS1YKq2dYkPTxjSLMbO6dFSAOqHTOcKCc7iv6zVP4"


def instance(**changes: Any) -> dict[str, Any]:
    """A healthy instance that runs; `changes` name what is different."""
    return {
        "id": 38120457,
        "machine_id": 51877,
        "host_id": 214906,
        "label": "gs-tag",
        "actual_status": "running",
        "intended_status": "running",
        "cur_state": "running",
        "next_state": "running",
        "status_msg": "success, running nvidia/cuda_12.6.3-runtime-ubuntu22.04/ssh\n",
        "image_runtype": "ssh ssh_direc ssh_proxy",
        "extra_env": [["HF_TOKEN", "consumers-5ecre7"]],
        "ssh_host": "ssh7.vast.ai",
        "ssh_port": 20456,
        "public_ipaddr": "198.51.100.23\n",
        "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "41022"}, {"HostIp": "::", "HostPort": "41022"}]},
        "jupyter_token": "jupyters-5ecre7",
        "start_date": 1790851382.417,
        "end_date": 1798761600.0,
        "is_bid": False,
        "dph_base": 0.38,
        "dph_total": 0.39,
        "storage_cost": 0.18,
        "disk_space": 40.0,
        "gpu_name": "RTX 4090",
        "num_gpus": 1,
    } | changes


def stopped(**changes: Any) -> dict[str, Any]:
    states = dict.fromkeys(("actual_status", "intended_status", "cur_state", "next_state"), "stopped")
    return instance(**(states | changes))


def listing(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A page, by default the only one."""
    return {
        "success": True,
        "instances_found": len(rows),
        "total_instances": len(rows),
        "next_token": None,
        "instances": list(rows),
    } | changes


def offer(number: int = 41873205, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "ask_contract_id": number,
        "machine_id": 51877,
        "host_id": 214906,
        "gpu_name": "RTX 4090",
        "num_gpus": 1,
        "gpu_ram": 24564,
        "cuda_max_good": 12.8,
        "cpu_cores": 48,
        "cpu_cores_effective": 12.0,
        "cpu_ram": 257669,
        "disk_space": 611.4,
        "inet_down": 744.0,
        "direct_port_count": 124,
        "public_ipaddr": "198.51.100.23\n",
        "geolocation": "Quebec, CA",
        "verification": "verified",
        "reliability2": 0.9931,
        "rentable": True,
        "rented": False,
        "is_bid": False,
        "min_bid": 0.21,
        "dph_base": 0.38,
        "dph_total": 0.39,
        "storage_cost": 0.18,
        "duration": 7910218.3,
    } | changes


AUTH_ERRORS = {
    "unknown key": (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}),
    "unknown key, as documented": (401, {"success": False, "error": "auth_error", "msg": "Invalid user key"}),
    "no header": (403, {"success": False, "error": "auth_error", "msg": "This action requires login."}),
    "key lacks the right": (401, "Authorization Error. Your key lacks the instance_read route access."),
    "two factors": (401, {"msg": "Your key lacks proper privileges … Two Factor Authentication"}),
}

RATE_LIMITS: dict[str, tuple[str, dict[str, str], float]] = {
    "message": (
        '{"message":"The action could not be performed because there were too many requests by the client.'
        '\\n\\nAPI requests too frequent: endpoint threshold=4.5*1.0\\n\\n","code":"429 Too Many Requests"}',
        {},
        4.5,
    ),
    "detail": ('{"detail":"API requests too frequent endpoint threshold=2.5"}', {}, 2.5),
    "error": (
        '{"success":false,"error":"rate_limit_exceeded","msg":"API requests too frequent endpoint threshold=3.0"}',
        {},
        3.0,
    ),
    "plain text": ("API requests too frequent", {}, 2.0),
    "field and header": (
        '{"error":"HTTPTooManyRequests","msg":"API requests too frequent","retry_after":3,"limit":5}',
        {"Retry-After": "5"},
        5.0,
    ),
}
