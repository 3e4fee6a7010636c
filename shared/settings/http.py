"""`[http]`: how much callers of the HTTP API may ask for, and how long an answer is waited for."""

from pydantic import Field

from shared.settings.sections import Section


class Http(Section):
    """`[http]`: limits of the HTTP API; each allows a burst of as many requests at once."""

    restore_lapses_hours: int = Field(
        168,
        ge=1,
        le=90 * 24,
        description="a restore that nobody decided by then needs a new request",
    )
    changes_per_minute: int = Field(
        60, ge=1, le=10_000, description="requests that change something, of one caller"
    )
    all_changes_per_minute: int = Field(
        240, ge=1, le=10_000, description="the same, of all callers with the role together"
    )
    reads_per_minute: int = Field(600, ge=1, le=10_000, description="other requests, of one caller")
