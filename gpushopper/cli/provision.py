"""`gpu-shopper provision`: rent a machine."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gpushopper.cli import bounds, keys, show, waiting
from gpushopper.cli.api import Body, given
from gpushopper.cli.failure import Failure, Interrupted, Misused, Refused
from gpushopper.cli.terminal import Terminal


class Workload(enum.StrEnum):
    LLM = "llm"
    LLM_VLLM = "llm_vllm"
    LLM_TGI = "llm_tgi"
    TRAINING = "training"
    BATCH = "batch"
    INTERACTIVE = "interactive"
    INFERENCE = "inference"
    BENCHMARK = "benchmark"
    SSH = "ssh"


class Scope(enum.StrEnum):
    SAME_GPU = "same_gpu"
    SAME_VRAM = "same_vram"
    ANY = "any"


def _option(*names: str, help: str, metavar: str | None = None, panel: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


MACHINE, AGAIN = "The machine", "If an offer turns out unusable"

OfferId = Annotated[str | None, _option("--offer-id", "-i", metavar="ID", help="This very offer of the menu.")]
Hours = Annotated[float, typer.Option("--hours", "-t", metavar="HOURS", help="How long at most; 0.5 is half an hour.")]
ConsumerId = Annotated[
    str | None,
    _option(
        "--consumer-id",
        "-c",
        metavar="NAME",
        help="For whom. Only an operator's key needs it; a new name enrols a consumer.",
    ),
]
Wait = Annotated[bool, _option("--wait", "-w", help="Return when it runs, or when it is clear that it will not.")]
SaveKey = Annotated[
    Path | None,
    _option("--save-key", "-k", metavar="PATH",
            help="Where to put the private key, mode 0600. Else it goes to our own folder, and with -o json only "
                 "into the answer."),
]  # fmt: skip
SshKey = Annotated[
    Path | None, _option("--ssh-key", "-s", metavar="PUBLICKEYFILE", help="Your own public key; none is made then.")
]
Overwrite = Annotated[bool, _option("--overwrite", help="Replace the file at --save-key.")]
WorkloadType = Annotated[
    Workload, typer.Option("--workload-type", help="A label for reports.", rich_help_panel=MACHINE)
]
DiskGb = Annotated[int | None, _option("--disk-gb", metavar="GB", help="50 unless told.", panel=MACHINE)]
Image = Annotated[
    str | None, _option("--image", help="The image to start, where the provider takes one.", panel=MACHINE)
]
Template = Annotated[
    str | None, _option("--template-hash-id", metavar="HASH", help="A template of the provider's.", panel=MACHINE)
]
OnStart = Annotated[
    Path | None, _option("--onstart", metavar="FILE", help="A script to run at the start.", panel=MACHINE)
]
Env = Annotated[
    list[str] | None, _option("--env", metavar="NAME=VALUE", help="For the machine; repeatable.", panel=MACHINE)
]
Idle = Annotated[
    float | None,
    _option("--idle-threshold-minutes", metavar="MIN", panel=MACHINE, help="End it after so long under 5 % GPU use."),
]
Retry = Annotated[
    bool | None,
    _option("--auto-retry/--no-auto-retry", panel=AGAIN,
            help="Go on to the next fitting offer: with --gpu-type yes, with --offer-id no, unless told."),
]  # fmt: skip
MaxRetries = Annotated[int | None, _option("--max-retries", metavar="0..5", help="3 unless told.", panel=AGAIN)]
RetryScope = Annotated[Scope | None, _option("--retry-scope", help="What counts as fitting.", panel=AGAIN)]


def provision(
    terminal: Terminal,
    offer_id: OfferId = None,
    gpu_type: bounds.GpuType = None,
    max_price: bounds.MaxPrice = None,
    hours: Hours = 1.0,
    consumer_id: ConsumerId = None,
    wait: Wait = False,
    save_key: SaveKey = None,
    ssh_key: SshKey = None,
    overwrite: Overwrite = False,
    provider: bounds.Provider = None,
    min_vram: bounds.MinVram = None,
    min_gpu_count: bounds.MinGpuCount = None,
    min_reliability: bounds.MinReliability = None,
    min_availability_confidence: bounds.MinConfidence = None,
    min_cuda: bounds.MinCuda = None,
    location: bounds.Location = None,
    country: bounds.Country = None,
    workload_type: WorkloadType = Workload.SSH,
    disk_gb: DiskGb = None,
    image: Image = None,
    template_hash_id: Template = None,
    onstart: OnStart = None,
    env: Env = None,
    idle_threshold_minutes: Idle = None,
    auto_retry: Retry = None,
    max_retries: MaxRetries = None,
    retry_scope: RetryScope = None,
) -> None:
    """Rent a machine: by --offer-id, or the cheapest that fits --gpu-type and the bounds.

    It is destroyed after --hours at the latest, and costs money until then or until `sessions done`.
    """
    if bool(offer_id) == bool(gpu_type):
        raise Misused("Say which machine: either --offer-id, or --gpu-type" + (", not both." if offer_id else "."))
    if ssh_key and save_key:
        raise Misused("With --ssh-key no private key is made, so there is none for --save-key.")
    if save_key:
        keys.check_free(save_key, overwrite=overwrite)
    wish = given(
        {
            "offer_id": offer_id, "gpu_type": gpu_type, "reservation_hours": hours, "consumer_id": consumer_id,
            "max_price_per_hour": max_price, "ssh_public_key": _read(ssh_key, "--ssh-key"),
            "provider": provider, "min_vram": min_vram, "min_gpu_count": min_gpu_count,
            "min_reliability": min_reliability, "min_availability_confidence": min_availability_confidence,
            "min_cuda": min_cuda, "location": location, "country": country, "workload_type": workload_type.value,
            "disk_gb": disk_gb, "image": image, "template_hash_id": template_hash_id,
            "onstart": _read(onstart, "--onstart"), "env": _variables(env),
            "idle_threshold_minutes": idle_threshold_minutes, "auto_retry": auto_retry, "max_retries": max_retries,
            "retry_scope": retry_scope.value if retry_scope else None,
        }
    )  # fmt: skip
    is_new = consumer_id is not None and _is_new(terminal, consumer_id)
    answer = _rent(terminal, wish)
    if is_new:
        terminal.say(f"{consumer_id} is a new consumer, enrolled by this wish. If that is a slip, end the session.")
    _keep_key(terminal, answer, save_key, overwrite=overwrite)
    if wait:
        answer["session"] = waiting.until_usable(terminal, answer["session"])
    session = answer["session"]
    terminal.answer(answer, show.session(session, terminal.api.now), show.note(_next_step(session)))
    if wait:
        check_usable(session)


def _is_new(terminal: Terminal, consumer: str) -> bool:
    """Nobody has this name yet. An operator's wish enrols whomever it names, a slip of the fingers too."""
    try:
        terminal.api.get("/costs/summary", consumer_id=consumer)
    except Refused as refusal:
        return refusal.status == 400
    return False


def _rent(terminal: Terminal, wish: Mapping[str, Any]) -> Body:
    try:
        return terminal.api.rent(wish)
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted while asking. The wish may have arrived: see `gpu-shopper sessions list`."
        ) from None


def _keep_key(terminal: Terminal, answer: Body, path: Path | None, *, overwrite: bool) -> None:
    """With `-o json` and no path, whoever reads the answer has the key, and acknowledges it."""
    private_key, session_id = answer["ssh_private_key"], answer["session"]["id"]
    if private_key is None or (terminal.wants_json and path is None):
        return
    saved = keys.keep(terminal.api, session_id, private_key, path, overwrite=overwrite)
    terminal.say(f"Session {session_id}. Its private key is at {saved}, and only there.")


def check_usable(session: Body) -> None:
    """Raises Failure if it will never run."""
    if session["status"] == "running":
        return
    failure = session["failure"]
    why = failure["message"] if failure else session["status_reason"] or session["status"]
    advice = "Another offer may do better: try again." if failure and failure["retry_suggested"] else ""
    gone = "" if session["status"] != "stopping" else "What was made for it is being destroyed."
    raise Failure(f"The session did not come to run. {show.plain(why)}", advice, gone)


def _next_step(session: Body) -> str:
    if session["status"] == "running":
        return f"Log in  gpu-shopper sessions ssh {session['id']}\nEnd it  gpu-shopper sessions done {session['id']}"
    if session["status"] in ("pending", "provisioning"):
        return f"See how it goes: gpu-shopper sessions get {session['id']} --wait"
    return f"What happened: gpu-shopper sessions events {session['id']}"


def _read(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    try:
        text = path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"{option}: {path} can't be read ({type(error).__name__}).") from error
    if "PRIVATE KEY" in text.partition("\n")[0]:
        raise Misused(f"{option}: {path} is a private key, which goes nowhere. Name the public one: {path}.pub")
    return text


def _variables(pairs: Sequence[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise Misused(f"--env takes NAME=VALUE, not {wrong[0]!r}.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
