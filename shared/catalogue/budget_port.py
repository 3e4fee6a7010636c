"""What the control plane asks of the catalogue about how much callers ask for."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from shared.domain.request_budget import Budget


class RequestBudgets(Protocol):
    """Counted once for all instances."""

    def spend(self, budgets: Sequence[Budget], now: datetime) -> None:
        """Take one request from each, or from none. Raises RequestsTooMany for the first that has
        none left.
        """
        ...

    def forget_whole_budgets(self, now: datetime) -> None:
        """Of which nothing is spent: without a row they are the same."""
        ...
