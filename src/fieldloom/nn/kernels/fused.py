"""All kernels of an accelerator, by Triton; imported where there is one alone."""

from __future__ import annotations

from fieldloom.nn.kernels import Kernels
from fieldloom.nn.kernels.proof import Device
from fieldloom.nn.kernels.triton_grouped import grouped_operations
from fieldloom.nn.kernels.triton_siren import siren_field, siren_layer


def fused_kernels(device: Device) -> Kernels:
    return Kernels(siren_layer(device), siren_field(device), grouped_operations(device))
