"""SQL of the port RequestBudgets; each function runs inside the session's transaction."""

from collections.abc import Sequence
from datetime import datetime

from shared.catalogue.postgres_session import Session
from shared.domain.request_budget import Budget

# As Budget.spent has it. Whoever comes at the same time waits for the row, and counts on.
_SPEND = """
    INSERT INTO request_budget AS known (owner, whole_at)
    VALUES (%(owner)s, %(now)s::timestamptz + %(cost)s)
    ON CONFLICT (owner) DO UPDATE SET whole_at = greatest(known.whole_at, %(now)s) + %(cost)s
    RETURNING whole_at
"""


def spend(session: Session, budgets: Sequence[Budget], now: datetime) -> None:
    """What is raised takes back what was spent, for it ends the transaction."""
    for one in budgets:
        values = {"owner": one.owner, "now": now, "cost": one.cost}
        for row in session.execute(_SPEND, values):
            one.demand_room(row["whole_at"], now)


def forget_whole(session: Session, now: datetime) -> None:
    session.execute("DELETE FROM request_budget WHERE whole_at <= %s", [now])
