"""Tests of the package, its commands and the programs they compile."""

import importlib.metadata

# Less than half the compile time of the programs of tests, which compute for moments; the same mathematics. Releases
# after 0.10 do not know it, and end where they meet a flag that they do not know.
QUICK = "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith("0.10.") else ""
