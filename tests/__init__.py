"""Tests of the package, its commands and the programs they compile."""

import importlib.metadata

# Programs of tests compute for moments: less than half their compile time without the newer emitters, and two thirds of
# the rest where a program is one module instead of many that are compiled side by side; the same mathematics. Releases
# after 0.10 do not know the first, and end where they meet a flag that they do not know.
_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
QUICK = _FLAGS if importlib.metadata.version("jaxlib").startswith("0.10.") else ""
