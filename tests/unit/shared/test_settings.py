"""Settings: a file that is wrong is told with its name, the line and the key."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.errors import SettingsInvalid
from shared.settings import AzureRepository, DirectoryRepository, EasyAuth, KeyVaultKey, load
from shared.settings.cluster import host_of

REPOSITORY = '[repository]\ntype = "directory"\npath = "blobs"\n'
CLUSTER = '[[cluster]]\nname = "main"\ndsn = "host=db user=backup"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pgkeep.toml"


def refusal(file: Path, text: str, environment: dict[str, str] | None = None) -> str:
    file.write_text(text, "utf-8")
    with pytest.raises(SettingsInvalid) as refused:
        load(file, environment or {})
    return refused.value.fact


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('[repository]\ntype = "directory"\npath = "x"\ncolour = 1\n', 4, "repository.colour"),
        (REPOSITORY + "[worker]\ncompression_level = 99\n", 5, "worker.compression_level"),
        (REPOSITORY + "[worker]\nlease_seconds = 'soon'\n", 5, "worker.lease_seconds"),
        ("[repository]\npath = 'x'\n", 1, "repository.type: is missing"),
        (REPOSITORY + "[unknown]\nx = 1\n", 4, "unknown"),
        (REPOSITORY + CLUSTER + '[cluster.schedule]\nfull = "every day"\n', 8, "schedule.full"),
        (REPOSITORY + CLUSTER + '\n[[cluster]]\nname = "B"\ndsn = ""\n', 9, "cluster.1.name"),
        ('[repository]\ntype = "tape"\n', 1, "repository"),
        ("profile = 'fast'\n" + REPOSITORY, 1, "profile"),
        ("[repository]\ntype = 'azure'\n", 1, "repository.account_url"),
        (
            REPOSITORY + "[keys]\nrecipients = [{ path = 'a' }, { path = 1 }]\n",
            5,
            "keys.recipients",
        ),
        (REPOSITORY + CLUSTER + CLUSTER, 1, "two clusters have one name"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_file_line_and_key(
    file: Path, text: str, line: int, key: str
) -> None:
    fact = refusal(file, text)
    assert key in fact
    assert str(file) in fact
    if "two clusters" not in key:
        assert f"line {line}:" in fact


def test_a_file_that_is_no_toml_is_told_with_its_line(file: Path) -> None:
    fact = refusal(file, REPOSITORY + "[worker\n")
    assert str(file) in fact
    assert "line 4" in fact


def test_a_file_that_is_missing_or_no_text_is_told_with_its_name(file: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot read"):
        load(file, {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="cannot read") as refused:
        load(file, {})
    assert str(file) in refused.value.fact


def test_without_a_repository_the_settings_are_refused(file: Path) -> None:
    assert "repository" in refusal(file, CLUSTER)


def test_a_wrong_secret_is_not_quoted(file: Path) -> None:
    text = REPOSITORY + "[[cluster]]\nname = 'main'\ndsn = ['canary-password']\n"
    assert "canary" not in refusal(file, text)


def test_relative_paths_begin_at_the_file_whatever_the_working_directory(
    file: Path, tmp_path: Path
) -> None:
    file.write_text(
        REPOSITORY
        + "[drill]\nscratch = 'scratch'\nprogram_directories = ['pg/bin', '/opt/pg']\n"
        + "[keys]\nsigning = { type = 'pem', path = 'keys/s.pem' }\n"
        + "pinned = [{ path = '/etc/p.pem' }]\n"
        + CLUSTER
        + "validation_sql = 'checks.sql'\n",
        "utf-8",
    )
    found = load(file, {})
    assert isinstance(found.repository, DirectoryRepository)
    assert found.repository.path == tmp_path / "blobs"
    assert found.drill.scratch == tmp_path / "scratch"
    assert found.drill.program_directories == (tmp_path / "pg/bin", Path("/opt/pg"))
    assert found.keys.signing is not None
    assert found.keys.signing.path == tmp_path / "keys/s.pem"  # type: ignore[union-attr]
    assert found.keys.pinned[0].path == Path("/etc/p.pem")
    assert found.cluster[0].validation_sql == tmp_path / "checks.sql"


def test_the_environment_overrides_and_adds_keys(file: Path) -> None:
    file.write_text(REPOSITORY + "[worker]\ntransfer_threads = 2\n", "utf-8")
    found = load(
        None,
        {
            "PGKEEP_CONFIG": str(file),
            "PGKEEP_WORKER__TRANSFER_THREADS": "5",
            "PGKEEP_CATALOGUE__DSN": "host=catalogue",
            "PGKEEP_PROFILE": "development",
            # The Functions host's connection settings share the prefix and are not ours.
            "PGKEEP_REPOSITORY__blobServiceUri": "https://example.org",
            "PGKEEP_DISPATCH_SCHEDULE": "* * * * * *",
        },
    )
    assert found.worker.transfer_threads == 5
    assert found.catalogue is not None
    assert found.catalogue.dsn.get_secret_value() == "host=catalogue"
    assert found.profile == "development"


def test_the_environment_alone_can_be_enough() -> None:
    variables = {
        "PGKEEP_REPOSITORY__TYPE": "azure",
        "PGKEEP_REPOSITORY__ACCOUNT_URL": "https://x.blob.core.windows.net",
    }
    found = load(None, variables)
    assert isinstance(found.repository, AzureRepository)
    assert found.repository.credential.kind == "managed-identity"


def test_a_wrong_variable_is_told_by_its_key(file: Path) -> None:
    fact = refusal(file, REPOSITORY, {"PGKEEP_WORKER__TRANSFER_THREADS": "many"})
    assert "worker.transfer_threads" in fact
    fact = refusal(file, REPOSITORY, {"PGKEEP_REPOSITORY__PATH__DEEPER": "x"})
    assert "PGKEEP_REPOSITORY__PATH__DEEPER" in fact


def test_a_cluster_that_the_file_does_not_name_is_refused_with_those_it_does(file: Path) -> None:
    file.write_text(REPOSITORY + CLUSTER, "utf-8")
    with pytest.raises(SettingsInvalid, match=r"no cluster 'other' .*known: main"):
        load(file, {}).cluster_named("other")


def test_i7_secrets_do_not_show_when_settings_are_printed(file: Path) -> None:
    text = REPOSITORY + "[[cluster]]\nname = 'main'\ndsn = 'host=x user=y password=canary'\n"
    file.write_text(text, "utf-8")
    found = load(file, {})
    assert isinstance(found.cluster[0].dsn, SecretStr)
    for shown in (repr(found), str(found), found.model_dump_json()):
        assert "canary" not in shown


@pytest.mark.parametrize("table", ["policy", "policies.short"])
def test_a_hold_is_refused_where_several_clusters_would_inherit_it(file: Path, table: str) -> None:
    held = f'[{table}.retention]\nhold = ["20261122T030000Z-F-k3x7"]\n'
    assert "belongs to [cluster.retention]" in refusal(file, REPOSITORY + held + CLUSTER)


def test_a_schedule_can_be_switched_off(file: Path) -> None:
    file.write_text(REPOSITORY + CLUSTER + "[cluster.schedule]\nfull = false\n", "utf-8")
    assert load(file, {}).cluster[0].schedule.full is False


POLICIES = (
    REPOSITORY
    + """
[policy.schedule]
full = "0 1 * * *"
[policy.retention]
full_days = 90
[policies.gold.retention]
full_days = 365
[policies.gold.objectives]
rpo_seconds = 30
[[cluster]]
name = "plain"
dsn = "host=a user=b"
[[cluster]]
name = "dear"
dsn = "host=a user=b"
policy = "gold"
[cluster.retention]
keep_last = 5
hold = ["20261122T030000Z-F-k3x7"]
[cluster.schedule]
incremental = false
"""
)


class TestPolicies:
    def test_a_cluster_has_its_own_keys_then_its_policys_then_the_defaults(
        self, file: Path
    ) -> None:
        file.write_text(POLICIES, "utf-8")
        plain, dear = load(file, {}).cluster

        assert (plain.retention.full_days, plain.retention.keep_last) == (90, 2)
        assert (plain.schedule.full, plain.schedule.incremental) == ("0 1 * * *", "0 2 * * *")
        assert (dear.retention.full_days, dear.retention.keep_last) == (365, 5)
        assert dear.retention.hold == ("20261122T030000Z-F-k3x7",)
        assert (dear.schedule.full, dear.schedule.incremental) == ("0 1 * * *", False)
        assert (dear.objectives.rpo_seconds, plain.objectives.rpo_seconds) == (30, 300)

    def test_the_defaults_are_the_strategys(self, file: Path) -> None:
        file.write_text(REPOSITORY + CLUSTER, "utf-8")
        [cluster] = load(file, {}).cluster
        kept, promised = cluster.retention, cluster.objectives

        assert (cluster.schedule.full, cluster.schedule.incremental) == ("0 3 * * 0", "0 2 * * *")
        assert (kept.full_days, kept.incremental_days) == (28, 7)
        assert (promised.rpo_seconds, promised.rto_minutes, promised.verified_hours) == (
            300, 240, 26,
        )  # fmt: skip
        assert (cluster.storage.warn_ratio, cluster.wal.behind_seconds) == (0.8, 900)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (POLICIES.replace('policy = "gold"', 'policy = "lead"'), "no policy 'lead'"),
            (POLICIES.replace("full_days = 90", "full_days = -1"), "policy.retention.full_days"),
            (POLICIES.replace("full_days = 365", "days = 1"), "policies.gold.retention.days"),
            (POLICIES.replace("keep_last = 5", "keep_last = 0"), "cluster.1.retention.keep_last"),
            (POLICIES.replace("[policy.schedule]", "[policy.colours]"), "policy.colours"),
            (POLICIES.replace("dsn =", "dns ="), "cluster.0.dns"),
            (REPOSITORY + "policy = 1\n", "policy"),
            (REPOSITORY + "cluster = 1\n", "cluster"),
            (REPOSITORY + "[policies]\ngold = 1\n" + CLUSTER + 'policy = "gold"\n', "gold"),
        ],
    )
    def test_a_fault_is_told_where_it_stands(self, file: Path, text: str, words: str) -> None:
        fact = refusal(file, text)
        assert words in fact
        assert "Traceback" not in fact

    def test_the_line_is_the_policys_when_the_fault_is(self, file: Path) -> None:
        text = POLICIES.replace("full_days = 90", "full_days = -1")
        line = text.splitlines().index("full_days = -1") + 1
        assert f"line {line}:" in refusal(file, text)

    def test_a_policy_may_not_name_what_only_a_cluster_has(self, file: Path) -> None:
        assert "policy.dsn" in refusal(file, REPOSITORY + "[policy]\ndsn = 'host=a'\n")


class TestLogin:
    @pytest.mark.parametrize(
        "text",
        [
            '[[cluster]]\nname = "main"\n',
            CLUSTER + 'service = "main"\nservice_file = "services"\n',
            '[[cluster]]\nname = "main"\nservice = "main"\n',
            CLUSTER + 'password_file = "x"\n[cluster.entra]\nkind = "azure-cli"\n',
        ],
    )
    def test_there_is_just_one_way_in(self, file: Path, text: str) -> None:
        assert "cluster.0" in refusal(file, REPOSITORY + text)

    @pytest.mark.parametrize(
        ("conninfo", "host"),
        [
            ("host=db1 user=b", "db1"),
            ("user=b hostaddr = 10.0.0.1", "10.0.0.1"),
            ("host='my host' user=b", "my host"),
            ("postgresql://b@db2:5433/x", "db2"),
            ("user=b", None),
        ],
    )
    def test_the_host_is_known_without_connecting(self, conninfo: str, host: str | None) -> None:
        assert host_of(conninfo) == host


AZURE = """
[identity]
client_id = "11111111-2222-3333-4444-555555555555"
[repository]
type = "azure"
account_url = "https://account.blob.core.windows.net"
[queues]
account_url = "https://other.queue.core.windows.net"
credential = { client_id = "own" }
[catalogue]
dsn = "host=catalogue"
[[cluster]]
name = "with-password"
dsn = "host=db"
[[cluster]]
name = "with-token"
dsn = "host=db"
entra = {}
[[keys.unwrap]]
type = "key-vault"
key_id = "https://vault.example/keys/wrap"
[[keys.recipients]]
type = "pem"
pem = "a public key"
[[keys.pinned]]
pem = "another"
"""


def test_the_identity_is_below_every_credential_that_says_nothing_else(file: Path) -> None:
    file.write_text(AZURE, "utf-8")
    settings = load(file, {})
    assert isinstance(settings.repository, AzureRepository)
    assert settings.identity is not None
    assert settings.repository.credential == settings.identity
    assert settings.queues is not None
    assert settings.queues.credential.client_id == "own"
    [unwrap] = settings.keys.unwrap
    assert isinstance(unwrap, KeyVaultKey)
    assert unwrap.credential == settings.identity
    assert [cluster.entra for cluster in settings.cluster] == [None, settings.identity]


def test_the_environment_says_who_we_are_and_lists_as_json(file: Path) -> None:
    file.write_text(AZURE, "utf-8")
    client, tenant = "22222222-2222-3333-4444-555555555555", "33333333-2222-3333-4444-555555555555"
    settings = load(
        file,
        {
            "PGKEEP_IDENTITY__KIND": "workload-identity",
            "PGKEEP_IDENTITY__CLIENT_ID": client,
            "PGKEEP_ACCESS__TYPE": "easy-auth",
            "PGKEEP_ACCESS__TENANT_ID": tenant,
            "PGKEEP_ACCESS__AUDIENCES": '["api://pgkeep", "pgkeep"]',
        },
    )
    assert isinstance(settings.repository, AzureRepository)
    assert settings.repository.credential.kind == "workload-identity"
    assert settings.repository.credential.client_id == client
    assert isinstance(settings.access, EasyAuth)
    assert settings.access.audiences == ("api://pgkeep", "pgkeep")


@pytest.mark.parametrize(
    ("keys", "fact"),
    [
        ('recipients = [{ type = "pem", path = "a", pem = "b" }]', "either a path or a pem"),
        ("pinned = [{}]", "either a path or a pem"),
        ('recipients = [{ type = "pem", pem = "BEGIN PRIVATE KEY" }]', "private key does not"),
    ],
)
def test_a_key_has_one_source_and_no_private_half_in_the_settings(
    file: Path, keys: str, fact: str
) -> None:
    assert fact in refusal(file, f"{REPOSITORY}[keys]\n{keys}\n")


def test_a_document_at_a_url_is_fetched_as_the_environment_says_and_its_faults_are_located() -> (
    None
):
    url, asked = "https://account.blob.core.windows.net/settings/pgkeep.toml", []

    def fetch(source: str, variables: Mapping[str, str]) -> str:
        asked.append((source, variables["PGKEEP_IDENTITY__CLIENT_ID"]))
        return REPOSITORY + "[worker]\ncompression_level = 99\n"

    environment = {"PGKEEP_CONFIG": url, "PGKEEP_IDENTITY__CLIENT_ID": "me"}
    with pytest.raises(SettingsInvalid, match=r"pgkeep\.toml, line 5: worker\.compression_level"):
        load(None, environment, fetch)
    assert asked == [(url, "me")]
    with pytest.raises(SettingsInvalid, match="cannot be read here"):
        load(None, environment)
