"""What needs the TPU compiler skips where libtpu is not installed."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def compiler() -> None:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu, the TPU compiler: the extra [tpu]")
