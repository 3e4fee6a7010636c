"""The control plane: requests, jobs, the catalogue and what contradicts it."""

from shared.errors.families import (
    Conflict,
    Corrupt,
    Denied,
    InvalidInput,
    NotFound,
    Refused,
    Unavailable,
)


class RequestInvalid(InvalidInput):
    """An HTTP request whose body, path or query does not fit."""

    code = "request-invalid"
    hint = "docs/reference/http-api.md shows the request."


class RequestTooLarge(RequestInvalid):
    """An HTTP body beyond the limit; it is refused before it is parsed."""

    code = "request-too-large"
    http_status = 413
    hint = "A request body holds at most 64 KiB."


class RequestsTooMany(Refused):
    """More HTTP requests in a minute than the settings allow; `wait_s` until the next may come."""

    code = "requests-too-many"
    http_status = 429
    retryable = True
    hint = "Wait as long as Retry-After says; `[http]` in pgkeep.toml sets the limits."

    def __init__(self, fact: str, *, wait_s: int) -> None:
        super().__init__(fact)
        self.wait_s = wait_s


class CatalogueValueRefused(InvalidInput):
    """A value that the catalogue cannot store, such as a text with a NUL character."""

    code = "catalogue-value-refused"
    hint = "Look at what sent the value; pgkeep itself sends none that PostgreSQL refuses."


class CatalogueSchemaOutdated(Refused):
    """The catalogue lacks migrations that this release needs."""

    code = "catalogue-schema-outdated"
    hint = "Run the migrations of this release before its function app starts."


class CatalogueSchemaTooNew(Refused):
    """The catalogue was migrated by a newer release."""

    code = "catalogue-schema-too-new"
    hint = "Use the newer release; migrations only go forward."


class CatalogueSchemaBroken(Refused):
    """The catalogue's migrations are not those of any release: half applied, or changed."""

    code = "catalogue-schema-broken"
    hint = "Make an empty database, migrate it and rebuild the catalogue from the repository."


class ClusterUnknown(NotFound):
    """A cluster that neither the settings nor the repository know."""

    code = "cluster-unknown"
    hint = "A cluster is known once pgkeep.toml names it and its first backup registered it."


class JobNotFound(NotFound):
    """No job has this id."""

    code = "job-not-found"
    hint = "Take the id from the answer to the request that made the job."


class ClusterIdentityDiffers(Corrupt):
    """A backup of another PostgreSQL system than the one its cluster was registered with."""

    code = "cluster-identity-differs"
    hint = "Give the other system a cluster name of its own."


class CatalogueDenied(Denied):
    """The catalogue database does not let us in, or its role lacks a right."""

    code = "catalogue-denied"
    hint = "Check catalogue.dsn, pg_hba.conf and the grants of the role that it names."


class BackupConflict(Conflict):
    """The catalogue knows this backup label with another document."""

    code = "backup-conflict"
    hint = "Documents are written once: look at who replaced it, then rebuild the catalogue."


class ReportConflict(Conflict):
    """The catalogue knows this report id with other contents."""

    code = "report-conflict"
    hint = "Reports are written once: look at who replaced it, then rebuild the catalogue."


class ClusterConflict(Conflict):
    """The catalogue knows this cluster name with another identity."""

    code = "cluster-conflict"
    hint = "A name belongs to one PostgreSQL system for ever; give the new one its own name."


class RequestConflict(Conflict):
    """An idempotency key that was used for another request."""

    code = "request-conflict"
    hint = "Make a new Idempotency-Key for a new request."


class CatalogueUnavailable(Unavailable):
    """The catalogue database does not answer. Backups and restores go on without it."""

    code = "catalogue-unavailable"
    hint = "Check the catalogue database; what it missed is found again by timer_reconcile."


class JobAbandoned(Unavailable):
    """A job that no worker survived: each attempt ended without a word."""

    code = "job-abandoned"
    hint = "Look at the container's memory and its last log lines, then ask for the job again."


class JobLost(Unavailable):
    """A job whose worker fell silent without reporting an end."""

    code = "job-lost"
    hint = "Look at the container host: was the worker evicted? The queue hands the job out again."
