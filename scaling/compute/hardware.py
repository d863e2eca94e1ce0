"""Peak rates of devices, for utilisation figures."""

# Dense bfloat16 FLOP/s per JAX device, by the name JAX gives the device kind. Sources: Google Cloud's TPU system
# architecture pages (v2 and v3 count per core, which is a JAX device there), NVIDIA's data sheets (without sparsity).
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak of one device, None where it is not in the table (CPUs, other chips)."""
    matches = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(matches, key=len)] if matches else None
