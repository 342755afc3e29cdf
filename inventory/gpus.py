"""One name for each GPU, however it is written.

Pure. Providers, people and `nvidia-smi` write `RTX_4090`, `rtx4090`, `geforcertx4090-pcie-24gb`,
`NVIDIA GeForce RTX 4090`; the menu, the filters and the hardware check all compare normalised names.
"""

from __future__ import annotations

import re

# Words that tell nothing about which GPU it is.
_NOISE = {"nvidia", "geforce", "tesla", "quadro", "graphics", "gpu", "card", "generation", "tensor", "core", "amd"}
_MEMORY = re.compile(r"\b\d{1,3}\s*gi?b\b|\b\d{4,6}\s*mi?b\b", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s_/,()-]+")
_GLUED = [
    # "rtx4090", "gtx1080ti", "geforcertx4090", "rtxa6000", "h100sxm5"
    (re.compile(r"geforce(?=[rg]tx)"), "geforce "),
    (re.compile(r"\b(rtx|gtx|gt|titan|quadro|tesla|rx|mi)(?=[a]?\d)"), r"\1 "),
    (re.compile(r"\brtx\s*pro(?=\d)"), "rtx pro "),
    (re.compile(r"(?<=\d)(ti|super|ada|sxm\d?|pcie|nvl|hbm\d?e?|ws|mq|maxq)\b"), r" \1"),
    (re.compile(r"\b(ti)(super)\b"), r"\1 \2"),
    (re.compile(r"\bmax\s*q\b"), "maxq"),
]
_WORDS = {
    "rtx": "RTX", "gtx": "GTX", "gt": "GT", "ti": "Ti", "super": "Super", "titan": "Titan", "xp": "Xp",
    "sxm": "SXM", "sxm2": "SXM", "sxm3": "SXM", "sxm4": "SXM", "sxm5": "SXM", "sxm6": "SXM", "pcie": "PCIe",
    "nvl": "NVL", "ada": "Ada", "pro": "Pro", "maxq": "Max-Q", "laptop": "Laptop",
    "hbm2": "", "hbm2e": "", "hbm3": "", "hbm3e": "", "lovelace": "",
    "blackwell": "", "server": "S", "workstation": "WS", "edition": "", "instinct": "",
}  # fmt: skip
# Where the form factor says nothing new (there is but one), or is told by some and not by others.
_ONE_FORM = re.compile(r"^(RTX|GTX|GT|Titan|L4\b|L40|T4\b|P4\b|P40|A2\b|A10\b|A16|A30|A40|RX)")
_ALIASES = {
    "A6000": "RTX A6000", "A5000": "RTX A5000", "A4000": "RTX A4000", "A4500": "RTX A4500", "A5500": "RTX A5500",
    "4090": "RTX 4090", "3090": "RTX 3090", "5090": "RTX 5090", "4080": "RTX 4080", "3080": "RTX 3080",
    "6000 Ada": "RTX 6000 Ada", "RTX 6000Ada": "RTX 6000 Ada", "RTX Ada 6000": "RTX 6000 Ada",
}  # fmt: skip

VRAM_GB = {
    "RTX 5090": 32, "RTX 4090": 24, "RTX 3090": 24, "RTX 3090 Ti": 24, "RTX 4080": 16, "RTX 4080 Super": 16,
    "RTX 3080": 10, "RTX 3080 Ti": 12, "RTX 4070 Ti": 12, "RTX 3060": 12, "RTX A6000": 48, "RTX 6000 Ada": 48,
    "RTX A5000": 24, "RTX A4000": 16, "L40": 48, "L40S": 48, "L4": 24, "A40": 48, "T4": 16,
    "H100 SXM": 80, "H100 PCIe": 80, "H100 NVL": 94, "H200": 141, "H200 SXM": 141, "B200": 180, "RTX Pro 6000": 96,
}  # fmt: skip


def normalise(text: str) -> str:
    """The one name of a GPU: `RTX 4090`, `H100 SXM`, `A100 PCIe`. Unknown ones come through tidied."""
    words = _tidy(text)
    name = " ".join(word for word in words if word)
    name = _ALIASES.get(name, name)
    if _ONE_FORM.match(name):
        name = " ".join(word for word in name.split() if word not in ("PCIe", "SXM"))
    return name


def _tidy(text: str) -> list[str]:
    lowered = _SEPARATORS.sub(" ", text.lower()).strip()
    for pattern, glue in _GLUED:
        lowered = pattern.sub(glue, lowered)
    lowered = _MEMORY.sub(" ", lowered)
    words = [word for word in lowered.split() if word not in _NOISE]
    return [_WORDS.get(word, word.upper() if re.search(r"\d", word) else word.capitalize()) for word in words]


def vram_gb(gpu_type: str) -> int:
    """Of one GPU, where the name alone tells; 0 if not."""
    return VRAM_GB.get(gpu_type, 0)
