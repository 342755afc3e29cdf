from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.gpus import normalise, vram_gb


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("RTX_4090", "RTX 4090"),
        ("geforcertx4090-pcie-24gb", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 PCIe 24GB", "RTX 4090"),
        ("geforcertx3080ti-pcie-12gb", "RTX 3080 Ti"),
        ("RTX 4070 Ti SUPER", "RTX 4070 Ti Super"),
        ("rtxa6000-pcie-48gb", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("rtx6000ada-pcie-48gb", "RTX 6000 Ada"),
        ("h100-sxm5-80gb", "H100 SXM"),
        ("H100 SXM", "H100 SXM"),
        ("H100 PCIE", "H100 PCIe"),
        ("H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM"),
        ("a100-pcie-80gb", "A100 PCIe"),
        ("l40s-pcie-48gb", "L40S"),
        ("v100-sxm2-16gb", "V100 SXM"),
        ("Tesla T4", "T4"),
    ],
)
def test_however_it_is_written_it_is_one_gpu(written: str, name: str) -> None:
    assert normalise(written) == name


@given(st.text(max_size=60))
def test_a_normalised_name_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.sampled_from(["RTX 4090", "H100 SXM", "A100 PCIe", "L40S", "RTX A6000"]), st.sampled_from(" _-"))
def test_case_and_separators_do_not_matter(name: str, separator: str) -> None:
    written = name.replace(" ", separator)
    assert normalise(written.lower()) == normalise(written.upper()) == name


def test_the_memory_of_known_gpus_is_known() -> None:
    assert vram_gb("RTX 4090") == 24
    assert vram_gb("something new") == 0
