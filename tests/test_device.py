"""In which precision to compute: bf16 where the device has arithmetic for it."""

import pytest
import torch

from oodlib import device
from oodlib.device import images_at_once


@pytest.fixture(autouse=True)
def look_again():
    """What a device can do is asked once; a test that changes it asks anew."""
    device.native_precision.cache_clear()
    yield
    device.native_precision.cache_clear()


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"neon": True, "bf16": True}, "bf16"),
        ({"neon": True, "bf16": False}, "fp32"),
    ],
)
def test_a_processor_computes_in_bf16_only_where_it_has_instructions_for_it(
    capabilities, expected, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert device.native_precision(CPU) == expected


@pytest.mark.parametrize(("generation", "expected"), [(7, "fp32"), (8, "bf16")])
def test_a_gpu_that_emulates_bf16_computes_in_fp32(generation, expected, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or generation >= 8
    )
    assert device.native_precision(GPU) == expected


@pytest.mark.parametrize(
    ("precision", "native", "enabled"), [("bf16", True, True), ("bf16", False, False), ("fp32", True, False)]
)
def test_a_bf16_network_computes_in_fp32_where_bf16_would_be_emulated(
    precision, native, enabled, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    with device.autocast(precision, CPU):
        assert torch.is_autocast_enabled("cpu") == enabled


@pytest.mark.parametrize(
    ("device", "size", "count"),
    [
        ("cpu", 8, 512),
        ("cpu", 32, 64),
        ("cpu", 512, 1),
        ("cuda", 32, 512),
        ("cuda", 128, 256),
        ("cuda", 224, 83),
    ],
)
def test_the_larger_the_images_the_fewer_go_through_a_network_at_once(device, size, count):
    assert images_at_once((size, size, 3), torch.device(device)) == count
