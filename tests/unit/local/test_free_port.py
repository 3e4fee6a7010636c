"""Ports for servers."""

import socket

from local import free_port
from local.free_port import _HIGHEST, _LOWEST


def test_a_free_port_can_be_bound_and_is_none_of_outgoing_connections() -> None:
    port = free_port.free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert _LOWEST <= port < _HIGHEST


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not free_port._is_free(listener.getsockname()[1])
