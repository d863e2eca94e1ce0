"""XLA's flags for GPUs, by purpose: the only table of them, as `tpu.flags` is for Cloud TPU.

No command sets them. They are an environment variable of the process,

    XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true" python -m scaling.train ...

and `tests/bench/gpu.py --xla=NAME` times with those of one bundle. XLA ends the process on a flag that it does not
know; tests/compute/test_gpu_flags.py starts it with all of these. Sources: [jax] JAX's documentation, "GPU performance
tips"; [toolbox] NVIDIA's JAX-Toolbox, "Environment variables" of its images.
"""

BUNDLES = {
    # XLA's defaults, which now include most of these
    "none": (),
    # overlaps collectives with matrix products: needed for FSDP on several GPUs, useless on one [jax, toolbox]
    "overlap": ("--xla_gpu_enable_latency_hiding_scheduler=true",),
    # a Triton kernel for every matrix product that can have one, with fused epilogues [jax]
    "triton": ("--xla_gpu_triton_gemm_any=true",),
    # no Triton kernels: cuBLAS for every matrix product; set in earlier images [toolbox]
    "cublas": ("--xla_gpu_enable_triton_gemm=false",),
}
