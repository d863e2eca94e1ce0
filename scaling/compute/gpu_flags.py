"""XLA's flags for GPUs, by what they are for: the one table of them, as `tpu.flags` is for Cloud TPU.

Nothing sets them behind a run's back. They are an environment variable of the process,

    XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true" python -m scaling.train ...

and `tests/bench/gpu.py --xla=NAME` times with those of one bundle. XLA ends the process on a flag that it does not
know; tests/compute/test_gpu_flags.py starts it with all of these. Sources: [jax] JAX's documentation, "GPU performance
tips"; [toolbox] NVIDIA's JAX-Toolbox, "Environment variables" of its images.
"""

BUNDLES = {
    # XLA's defaults, which are what most of these once were
    "none": (),
    # collectives run beside the matrix products: what FSDP on several GPUs needs, nothing on one [jax, toolbox]
    "overlap": ("--xla_gpu_enable_latency_hiding_scheduler=true",),
    # a Triton kernel for every matrix product that can have one, with what follows it fused in [jax]
    "triton": ("--xla_gpu_triton_gemm_any=true",),
    # none of those: cuBLAS for every matrix product; set in earlier images [toolbox]
    "cublas": ("--xla_gpu_enable_triton_gemm=false",),
}
