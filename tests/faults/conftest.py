"""Whether the golden matrix is compared or written."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/faults/matrix.json anew")
