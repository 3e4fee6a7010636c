"""Certificate authorities of the system, for the PostgreSQL client library inside psycopg's wheels.

The wheels bring an OpenSSL that looks for authorities where no system has them, so that
`sslrootcert=system` would believe nobody. Python's own OpenSSL knows where the system keeps them.
"""

from collections.abc import MutableMapping
from ssl import DefaultVerifyPaths

# https://docs.openssl.org/master/man3/SSL_CTX_load_verify_locations/
_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"


def lend_trust(environment: MutableMapping[str, str], paths: DefaultVerifyPaths) -> None:
    """Tell every OpenSSL of this process what Python's believes; what somebody has set stays.

    To be called before the first connection: OpenSSL reads the environment then.
    """
    if _FILE in environment or _FOLDER in environment:
        return
    if paths.cafile:
        environment[_FILE] = paths.cafile
    if paths.capath:
        environment[_FOLDER] = paths.capath
