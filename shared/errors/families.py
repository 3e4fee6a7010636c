"""The families of errors: what a caller may do about one, whatever went wrong exactly."""

from typing import ClassVar


class PgkeepError(Exception):
    """Base of everything that pgkeep raises on purpose; the process edges report it."""

    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 70
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = "This is a defect in pgkeep: report it with the log of this run."

    def __init__(self, fact: str, *, hint: str | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.advice = hint or self.hint

    def __str__(self) -> str:
        return f"{self.code}: {self.fact}"


class InvalidInput(PgkeepError):
    """The caller's words are off."""

    code = "invalid-input"
    exit_status = 2
    http_status = 400
    hint = "Correct the value that the message names."


class SettingsInvalid(InvalidInput):
    """A settings file or variable that cannot be used; the fact names file, line and key."""

    code = "settings-invalid"
    hint = "docs/reference/settings.md lists every key with its type and default."


class Refused(PgkeepError):
    """A precondition does not hold; nothing was changed."""

    code = "refused"
    exit_status = 3
    http_status = 409
    hint = "Nothing was changed."


class NotFound(PgkeepError):
    """The thing named does not exist."""

    code = "not-found"
    exit_status = 4
    http_status = 404
    hint = "List what exists with `pgkeep list`."


class Corrupt(PgkeepError):
    """Stored bytes are not what was written."""

    code = "corrupt"
    exit_status = 5
    http_status = 422
    hint = "Do not restore from it; take a new backup and look at who can write to the repository."


class Denied(PgkeepError):
    """An identity lacks a right, or a key does not fit."""

    code = "denied"
    exit_status = 6
    http_status = 403
    hint = "Give the identity the right that the message names."


class Conflict(PgkeepError):
    """Somebody else holds it, or it exists already."""

    code = "conflict"
    exit_status = 7
    http_status = 409
    hint = "Look at who holds or made it before you try again."


class Unavailable(PgkeepError):
    """A service does not answer; trying again may help."""

    code = "unavailable"
    exit_status = 75  # EX_TEMPFAIL of sysexits.h
    http_status = 503
    retryable = True
    hint = "Try again; if it stays, look at the health of the service that the message names."
