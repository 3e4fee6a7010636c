"""The proxy before a plain echo server: what clients see of each fault."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.harness.tcp_proxy import FaultNeverFired, OpenProxy, TcpProxy, Towards

SOON_S = 5
A_MOMENT_S = 0.2


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets, for any number of connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept_and_echo, args=[listener])]
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()


def accept_and_echo(listener: socket.socket) -> None:
    threads = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        threads.append(threading.Thread(target=echo, args=[connection]))
        threads[-1].start()
    for thread in threads:
        thread.join()


def echo(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except ConnectionError:
            pass


def dial(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), SOON_S)


def receive(client: socket.socket, n_bytes: int) -> bytes:
    received = b""
    while len(received) < n_bytes and (data := client.recv(n_bytes - len(received))):
        received += data
    return received


def talk_for_long(client: socket.socket) -> None:
    for _ in range(1_000):
        client.sendall(b"x" * 1_000)
        receive(client, 1_000)


def test_bytes_pass_both_ways_and_an_end_is_passed_on(
    echo_port: int, open_proxy: OpenProxy
) -> None:
    proxy, message = open_proxy("127.0.0.1", echo_port), b"abc" * 100_000
    with dial(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=[message])
        sender.start()
        assert receive(client, len(message)) == message
        sender.join()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert [proxy.passed(way) for way in Towards] == [len(message)] * 2


def test_a_stopped_proxy_resets_and_refuses_until_it_starts_again(
    echo_port: int, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy("127.0.0.1", echo_port)
    with dial(proxy) as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        proxy.stop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy.start()
    with dial(proxy) as client:
        client.sendall(b"y")
        assert receive(client, 1) == b"y"


def test_a_deaf_proxy_accepts_stalls_and_goes_on_where_it_was(
    echo_port: int, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy("127.0.0.1", echo_port)
    with dial(proxy) as old:
        old.sendall(b"1")
        assert receive(old, 1) == b"1"
        proxy.deafen()
        with dial(proxy) as new:
            for client in (old, new):
                client.settimeout(A_MOMENT_S)
                client.sendall(b"2")
                with pytest.raises(TimeoutError):
                    client.recv(1)
            proxy.start()
            for client in (old, new):
                client.settimeout(SOON_S)
                assert receive(client, 1) == b"2"


def test_cut_all_resets_what_there_is_and_lets_new_ones_in(
    echo_port: int, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy("127.0.0.1", echo_port)
    with dial(proxy) as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        proxy.cut_all()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with dial(proxy) as client:
        client.sendall(b"y")
        assert receive(client, 1) == b"y"


@pytest.mark.parametrize("towards", Towards)
def test_a_cut_comes_after_so_many_bytes_and_only_once(
    echo_port: int, open_proxy: OpenProxy, towards: Towards
) -> None:
    proxy = open_proxy("127.0.0.1", echo_port)
    proxy.cut_after(100_000, towards)
    with dial(proxy) as client, pytest.raises(ConnectionError):
        talk_for_long(client)
    assert proxy.passed(towards) == 100_000
    with dial(proxy) as client:
        client.sendall(b"y" * 200_000)
        assert len(receive(client, 200_000)) == 200_000


def test_a_fault_that_met_no_connection_is_told_at_the_end(echo_port: int) -> None:
    proxy = TcpProxy("127.0.0.1", echo_port)
    with dial(proxy) as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
    proxy.cut_after(1_000)
    proxy.deafen()
    with pytest.raises(FaultNeverFired, match="cut_after towards client, deafen"):
        proxy.__exit__(None, None, None)


def test_cutting_when_there_is_no_connection_is_an_error(
    echo_port: int, open_proxy: OpenProxy
) -> None:
    with pytest.raises(FaultNeverFired, match="no connection"):
        open_proxy("127.0.0.1", echo_port).cut_all()


def test_a_proxy_before_nothing_hangs_up(open_proxy: OpenProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with dial(open_proxy("127.0.0.1", port)) as client:
        assert client.recv(1) == b""
