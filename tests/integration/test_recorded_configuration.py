"""What a server had set is kept with its backup (trap 17: configuration outside the directory)."""

import pytest

from tests.harness.worker_services import CLUSTER, Site

pytestmark = pytest.mark.integration


def test_t17_show_prints_what_the_server_had_set_when_it_was_backed_up(
    committed_site: Site,
) -> None:
    done = committed_site.pgkeep("show", CLUSTER, "--configuration")
    assert done.returncode == 0, done.stderr
    assert "max_connections = '40'" in done.stdout.splitlines()
    assert "autovacuum = 'off'" in done.stdout.splitlines()
    assert "hba_file" not in done.stdout, "backup_user has no right to see where it lies"
