"""A row of preflight, and the command."""

import sys

from tests.commands import call

ROW = {
    "config": "vit_x", "topology": "v5e:16x16", "chips": 256, "mesh": {"replica": 1, "fsdp": 256, "tensor": 1},
    "batch_size": 4096, "accumulate": 1, "remat": "full", "steps": 1000, "fits": True, "hbm_per_chip_bytes": 3 * 2**30,
    "hbm_arguments_bytes": 2**30, "hbm_temporaries_bytes": 2**31, "hbm_limit_bytes": 2**34, "compile_seconds": 60.0,
    "flops_per_step": 10**15, "executed_flops_per_step": 13 * 10**14,
    "collectives": {"all-gather": {"count": 24, "bytes": 10**10}}, "collective_bytes": 10**10, "fsdp_bytes": 10**10,
    "overlapped_share": 0.75, "hbm_traffic_bytes": 2 * 10**10, "seconds": {"compute": 0.02, "hbm": 0.03, "ici": 0.01},
    "mfu_bound": 0.66, "binding": "hbm", "cores": 2, "reading": 2,
}  # fmt: skip


def preflight(*arguments, how=call):
    return how([sys.executable, "-m", "tpu.preflight", *arguments])
