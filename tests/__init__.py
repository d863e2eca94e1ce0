"""Tests of the package, its commands and the programs they compile."""

# Less than half the compile time of the programs of tests, which compute for moments; the same mathematics.
QUICK = "--xla_cpu_use_fusion_emitters=false"
