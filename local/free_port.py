"""A TCP port on 127.0.0.1 that is free now; the caller tries again when it is lost in between."""

import secrets
import socket

# Below Linux's range for outgoing connections (32768 up: ip_local_port_range), where any client
# of this machine could take the port before the server has bound it, or while it restarts.
_LOWEST, _HIGHEST = 20_000, 32_000
_ATTEMPTS = 100


def free_port() -> int:
    """Chosen at random, so that parallel callers seldom choose the same."""
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if _is_free(port):
            return port
    raise OSError(f"no free port in {_ATTEMPTS} attempts between {_LOWEST} and {_HIGHEST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of the last one that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
