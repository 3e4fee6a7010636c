"""Templates against the published types of Azure, where the checker lies beside the checkout."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.harness.deployed import INFRA

TOOLS: Final = INFRA.parents[1] / "shared" / "tools"
CHECKER: Final = TOOLS / "bicep_check.py"
BICEP: Final = sorted([INFRA / "main.bicep", *INFRA.glob("modules/*.bicep")])

pytestmark = pytest.mark.skipif(not CHECKER.is_file(), reason="the checker is not there")


def checked(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKER, "--types", TOOLS / "bicep-types", *files],
        check=False,
        capture_output=True,
        text=True,
    )


def test_every_template_fits_the_published_types() -> None:
    done = checked(*BICEP)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_property_that_no_type_has_is_noticed(tmp_path: Path) -> None:
    text = (INFRA / "modules" / "registry.bicep").read_text("utf-8")
    wrong = tmp_path / "registry.bicep"
    wrong.write_text(text.replace("adminUserEnabled", "adminUser"), "utf-8")
    done = checked(wrong)
    assert done.returncode == 1
    assert "adminUser" in done.stdout


def test_every_module_is_used_and_each_parameter_says_what_it_is() -> None:
    texts = {path.name: path.read_text("utf-8") for path in BICEP}
    hook = (INFRA / "hooks" / "postdeploy").read_text("utf-8")
    for name, text in texts.items():
        others = [other for path, other in texts.items() if path != name]
        assert name == "main.bicep" or any(name in other for other in [*others, hook]), name
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("param "):
                above = "\n".join(lines[max(0, number - 14) : number])
                declaration = above.rpartition("\n\n")[2]
                assert "@description(" in declaration, f"{name}: {line}"
