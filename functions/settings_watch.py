"""The watch over the settings: a changed document that cannot be followed is a finding."""

from datetime import datetime, timedelta
from typing import Final

from functions.finding_news import tell
from functions.followed_settings import SettingsTrouble
from functions.wiring import Services
from shared.domain.finding_rules import FindingCode, FindingScope
from shared.domain.findings import REPOSITORY, Finding
from shared.settings import CONFIG_VARIABLE

_SETTINGS: Final = (FindingScope.SETTINGS,)
# Storage or catalogue that fail for a moment are nobody's mistake in a document.
_PASSES_WITHIN: Final = timedelta(minutes=10)


def watch_settings(services: Services) -> None:
    """Costs a statement; the document itself was looked at when the invocation began."""
    now = services.clock()
    trouble = services.settings_trouble()
    found = [] if trouble is None or _may_pass(trouble, now) else [_finding(trouble)]
    changes = services.catalogue.settle_findings(REPOSITORY, _SETTINGS, found, now)
    tell(services, REPOSITORY, changes)


def _may_pass(trouble: SettingsTrouble, now: datetime) -> bool:
    return trouble.passing and now - trouble.since < _PASSES_WITHIN


def _finding(trouble: SettingsTrouble) -> Finding:
    return Finding(
        FindingCode.SETTINGS_NOT_FOLLOWED,
        CONFIG_VARIABLE,
        trouble.since,
        trouble.fact,
        {"error_code": trouble.code},
    )
