"""Compiles fast rather than well: these tests compile for minutes and compute for seconds.

The optimised programs are tested through the command line, in `tests/test_train.py`.
"""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
