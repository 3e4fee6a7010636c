"""The test harness: one plug-in for each thing that tests need, see tests/harness."""

pytest_plugins = [
    "tests.harness.azurite",
    "tests.harness.both_catalogues",
    "tests.harness.chain_random",
    "tests.harness.fixed_clock",
    "tests.harness.hypothesis_profile",
    "tests.harness.postgres_clusters",
    "tests.harness.roomy_place",
    "tests.harness.simulation_seeds",
    "tests.harness.tcp_proxy",
    "tests.harness.worker_services",
    "tests.harness.chain_site",
    "tests.harness.wal_lab",  # after what it imports: pytest rewrites plug-ins as it loads them
]
