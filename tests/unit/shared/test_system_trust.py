"""`sslrootcert=system` believes what the system does, in a client with an OpenSSL of its own."""

import os
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from shared.system_trust import lend_trust

CLIENT: Final = """
import os, ssl, sys
import psycopg
from shared.system_trust import lend_trust
file, port = sys.argv[1:]
paths = ssl.get_default_verify_paths()._replace(cafile=file, capath="")
lend_trust(os.environ, paths)
try:
    psycopg.connect(
        f"host=localhost hostaddr=127.0.0.1 port={port} user=u sslmode=verify-full "
        "sslrootcert=system connect_timeout=10"
    )
except psycopg.OperationalError as error:
    print(error)
"""


def paths(*, file: str = "", folder: str = "") -> ssl.DefaultVerifyPaths:
    return ssl.get_default_verify_paths()._replace(cafile=file, capath=folder)


def test_what_python_believes_is_told_and_what_somebody_has_set_stays() -> None:
    told: dict[str, str] = {}
    lend_trust(told, paths(folder="/certs"))
    assert told == {"SSL_CERT_DIR": "/certs"}
    lend_trust(told, paths(file="/bundle.pem"))
    assert told == {"SSL_CERT_DIR": "/certs"}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of a server at localhost, and its own authority."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost "
        "-keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "certificate.pem"


def greet_once(listener: socket.socket, certificate: Path) -> None:
    """As much of a PostgreSQL server as comes before the first message under TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    context.set_alpn_protocols(["postgresql"])
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        connection.recv(8)  # SSLRequest
        connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1024)


@pytest.mark.parametrize("lent", [False, True])
def test_t19_a_server_is_believed_as_far_as_the_system_believes_it(
    certificate: Path, *, lent: bool
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT_")}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Thread(target=greet_once, args=(listener, certificate))
        server.start()
        port = str(listener.getsockname()[1])
        answer = subprocess.run(
            [sys.executable, "-c", CLIENT, str(certificate) if lent else "", port],
            env=clean,
            check=True,
            capture_output=True,
            text=True,
        )
        server.join(timeout=10)
    assert ("certificate verify failed" in answer.stdout) is not lent, answer.stdout
    assert "connection failed" in answer.stdout
