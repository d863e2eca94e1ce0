"""Published figures of accelerators, by the name that JAX gives the device kind.

The only table of them: training reads it for utilisation, and so do forecasts and the compiler laboratory in `tpu`,
which adds only the links between TPU chips. A name is matched as a whole: an `L40` is not an `L4`, and a slice of a GPU
(`... MIG 3g.40gb`) is not that GPU. Utilisation is not reported for devices that are not in the table.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device: a chip, a TensorCore of TPU v2 and v3, half a TPU7x chip.

    Attributes:
      peak_flops: dense bfloat16 operations per second, accumulated in float32; without sparsity.
      memory: bytes of device memory: the sources' gigabytes, taken as 2^30; the runtime reserves a part.
      bandwidth: memory bandwidth in bytes per second.
    """

    peak_flops: float
    memory: int
    bandwidth: float


def _chip(tera: float, gigabytes: int, bandwidth: float) -> Chip:
    """A chip from its tera-operations per second, memory in GB, and GB per second."""
    return Chip(tera * 1e12, gigabytes * 2**30, bandwidth * 1e9)


# TPU: Google Cloud's pages on the system architecture of each generation; those of v2 and v3 also in Jouppi et al., "A
# domain-specific supercomputer" (CACM 2020). Figures of a chip are halved to a core of v2 and v3, to a device of TPU7x.
_V5E = _chip(197, 16, 819)
_V5P = _chip(459, 95, 2765)
_V6E = _chip(918, 32, 1638)
_TPUS = {
    "TPU v2": _chip(22.5, 8, 350),
    "TPU v3": _chip(61.5, 16, 450),
    "TPU v4": _chip(275, 32, 1228),
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "TPU7x": _chip(1153.5, 96, 3690),
}

# GPU: NVIDIA's data sheets and white papers, named beside each. Those that give bfloat16 with sparsity only are halved.
_GPUS = {
    "NVIDIA A100-SXM4-40GB": _chip(312, 40, 1555),  # A100 data sheet
    "NVIDIA A100-PCIE-40GB": _chip(312, 40, 1555),  # A100 data sheet
    "NVIDIA A100-SXM4-80GB": _chip(312, 80, 2039),  # A100 data sheet
    "NVIDIA A100 80GB PCIe": _chip(312, 80, 1935),  # A100 data sheet
    "NVIDIA H100 80GB HBM3": _chip(989, 80, 3350),  # H100 data sheet, SXM: 1979 with sparsity
    "NVIDIA H100 PCIe": _chip(756, 80, 2000),  # H100 PCIe data sheet: 1513 with sparsity, 2 TB/s
    "NVIDIA H100 NVL": _chip(835, 94, 3900),  # H100 data sheet, NVL: 1671 with sparsity, 3.9 TB/s
    "NVIDIA H200": _chip(989, 141, 4800),  # H200 data sheet, SXM: 1979 with sparsity
    "NVIDIA H200 NVL": _chip(835, 141, 4800),  # H200 data sheet, NVL: 1671 with sparsity
    "NVIDIA B200": _chip(2250, 180, 8000),  # DGX B200 data sheet, an eighth: 36 P sparse, 1440 GB, 64 TB/s
    "NVIDIA GB200": _chip(2500, 186, 8000),  # GB200 NVL72 data sheet, half a superchip: 10 P sparse, 372 GB, 16 TB/s
    "NVIDIA L4": _chip(121, 24, 300),  # L4 data sheet: 242 with sparsity
    "NVIDIA L40S": _chip(362, 48, 864),  # L40S data sheet: 362.05, 733 with sparsity
    "NVIDIA RTX A6000": _chip(154.8, 48, 768),  # GA102 white paper, appendix on the RTX A6000
    "NVIDIA GeForce RTX 4090": _chip(165.2, 24, 1008),  # Ada white paper, appendix A, with float32 accumulation
}

CHIPS = _TPUS | _GPUS


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 operations per second of one device; None if it is not in the table (CPUs, other chips)."""
    return CHIPS[device_kind].peak_flops if device_kind in CHIPS else None
