"""What is recorded of a configuration that lies outside the data directory (trap 17)."""

from worker.postgres.configuration_facts import ConfigurationFacts, recorded_configuration

DEBIAN = ConfigurationFacts(
    settings={"work_mem": "4096", "log_line_prefix": "it's \\ %m", "odd.name": "two\nlines"},
    files={
        "data_directory": "/var/lib/postgresql/17/main",
        "config_file": "/etc/postgresql/17/main/postgresql.conf",
        "hba_file": "/etc/postgresql/17/main/pg_hba.conf",
        "ident_file": "/var/lib/postgresql/17/main/pg_ident.conf",
    },
    hba=("host all all 10.0.0.0 255.0.0.0 scram-sha-256",),
)


def test_files_outside_the_data_directory_are_named() -> None:
    assert DEBIAN.outside == (
        "/etc/postgresql/17/main/postgresql.conf",
        "/etc/postgresql/17/main/pg_hba.conf",
    )
    assert ConfigurationFacts(files={"config_file": "/etc/postgresql.conf"}).outside == ()


def test_the_recorded_configuration_reads_back_as_configuration() -> None:
    lines = recorded_configuration(DEBIAN).splitlines()
    assert "work_mem = '4096'" in lines
    assert r"log_line_prefix = 'it''s \\ %m'" in lines
    assert r"# odd.name was 'two\nlines'" in lines
    assert "#   host all all 10.0.0.0 255.0.0.0 scram-sha-256" in lines
    settings = [line for line in lines if line and not line.startswith("#")]
    assert len(settings) == 2
