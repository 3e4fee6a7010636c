"""What PostgreSQL says no to, and what of its answers cannot be used."""

from shared.errors.families import Corrupt, Denied, InvalidInput, Refused, Unavailable


class RecoverySettingInvalid(InvalidInput):
    """A value that cannot stand in postgresql.auto.conf without changing its meaning."""

    code = "recovery-setting-invalid"
    hint = "Leave out control characters and line ends; nothing was written."


class TableNameInvalid(InvalidInput):
    """A configured table that does not read [database.]schema.table."""

    code = "table-name-invalid"
    hint = "Write schema.table or database.schema.table; put odd names in double quotes."


class LsnInvalid(InvalidInput):
    """A text or number that is no LSN, or a range of them that runs backwards."""

    code = "lsn-invalid"
    hint = "An LSN reads 16/B374D848; `select pg_current_wal_lsn()` shows one."


class WalFileNameInvalid(InvalidInput):
    """A name that no file of a WAL archive has."""

    code = "wal-file-name-invalid"
    hint = "Segments have 24 hexadecimal digits; see PostgreSQL's chapter on continuous archiving."


class WalSegmentSizeInvalid(InvalidInput):
    """A WAL segment size that initdb would refuse."""

    code = "wal-segment-size-invalid"
    hint = "Take the size that `show wal_segment_size` prints."


class ConninfoInvalid(InvalidInput):
    """A PostgreSQL connection string that cannot be used; its text is withheld (passwords)."""

    code = "conninfo-invalid"
    hint = "Write host=… user=… (and port, dbname, passfile, sslmode, sslrootcert where needed)."


class PostgresVersionUnsupported(Refused):
    """A server older or newer than the versions this release was tried with."""

    code = "postgres-version-unsupported"
    hint = "docs/reference/compatibility.md lists the versions; upgrade pgkeep before the server."


class PostgresEnvironmentRefused(Refused):
    """A PG* variable that could lead libpq to another server and that no parameter overrides."""

    code = "postgres-environment-refused"
    hint = "Unset the variable and put what it says into the connection string."


class PostgresCommandFailed(Refused):
    """PostgreSQL answered a command with an error that has no name of its own here."""

    code = "postgres-command-failed"
    hint = "Look up the SQLSTATE in the message and read the server's log at that time."


class StandbyIdle(Refused):
    """A standby has replayed no checkpoint since the parent of an incremental backup ended."""

    code = "standby-idle"
    hint = "Wait for the primary's next checkpoint, or run CHECKPOINT there; or take a full backup."


class FullPageWritesOff(Refused):
    """The primary of a standby wrote WAL without full pages: a backup could hold torn ones."""

    code = "full-page-writes-off"
    hint = "Switch full_page_writes on and run CHECKPOINT, both on the primary; then try again."


class ManifestInvalid(Corrupt):
    """A backup_manifest that PostgreSQL's own tools would refuse, too."""

    code = "manifest-invalid"
    hint = "The backup cannot be trusted: take a new one, and keep this one for an inquiry."


class ProtocolViolation(Corrupt):
    """The peer sent something that no PostgreSQL server sends."""

    code = "protocol-violation"
    hint = "Nothing was committed. Check what listens at the address that the connection names."


class PostgresDenied(Denied):
    """pg_hba.conf or the role's attributes keep us out."""

    code = "postgres-denied"
    hint = "`pgkeep check` prints the line for pg_hba.conf, or the statement, that is missing."


class PostgresAuthenticationFailed(PostgresDenied):
    """The password is wrong, expired or missing."""

    code = "postgres-authentication-failed"
    hint = "Check the password file or token of the role that the message names."


class ReplicationDenied(PostgresDenied):
    """The role exists but may not replicate."""

    code = "replication-denied"
    hint = "Run `ALTER ROLE … REPLICATION` for the role, or use the role made for backups."


class PostgresTlsFailed(Denied):
    """TLS is missing, or the certificate is not that of the server we meant."""

    code = "postgres-tls-failed"
    hint = "Give the server's CA with sslrootcert=…; do not lower sslmode on a network you share."


class PostgresUnreachable(Unavailable):
    """No connection to PostgreSQL came about."""

    code = "postgres-unreachable"
    hint = "Check address, port, DNS and firewall, and that the server runs."


class PostgresGone(Unavailable):
    """The connection to PostgreSQL ended before the work did."""

    code = "postgres-gone"
    hint = "Read the server's log: was it restarted, or was the backend terminated?"


class StandbyPromoted(Unavailable):
    """The standby that a backup was read from became a primary meanwhile; nothing was committed."""

    code = "standby-promoted"
    hint = (
        "Try again: what is no standby any more is passed over. Then name another in the settings."
    )


class PostgresSilent(PostgresGone):
    """The connection stands, but nothing came for longer than the limit."""

    code = "postgres-silent"
    hint = "Look for a stalled disk at the server or a network that drops packets."


class PostgresConnectionsExhausted(Unavailable):
    """No slot is free: max_connections, max_wal_senders or the role's limit."""

    code = "postgres-connections-exhausted"
    hint = "Look at pg_stat_replication, or raise max_wal_senders."
