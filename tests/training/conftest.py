"""These tests compile for minutes and compute for seconds."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quickly(quick_compilation):
    pass
