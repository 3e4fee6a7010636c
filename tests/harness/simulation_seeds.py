"""How many seeds the simulation of a fleet is run for.

A test with a parameter `simulation_seed` runs for as many seeds as `--sim-seeds` says.
"""

import pytest

DEFAULT = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "random worlds in which a small fleet is simulated (default: %(default)s)"
    parser.addoption("--sim-seeds", type=int, default=DEFAULT, help=text)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "simulation_seed" in metafunc.fixturenames:
        metafunc.parametrize("simulation_seed", range(metafunc.config.getoption("--sim-seeds")))
