"""What `pgkeep-wal` and the agent say to each other: one line of JSON each way, and a descriptor.

The client passes the file it wants pushed, opened with its own rights; the agent passes a segment
it fetched. The other end of these rules is worker/pgkeep_wal.py, which may import nothing.
"""

import json
import os
import socket
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InvalidInput, PgkeepError
from worker import pgkeep_wal as client

_NAME_MAX = 255
_PATH_MAX = 4096  # PATH_MAX of linux/limits.h


class WalRequestInvalid(InvalidInput):
    """What came over the agent's socket is no request."""

    code = "wal-request-invalid"
    hint = "Is `pgkeep-wal` of the same version as the agent? Restart the agent after an upgrade."


class Request(BaseModel):
    """`path` is where the client's file is, or shall be, on this host. `cluster` is whose WAL a
    fetch wants; None takes what there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    verb: Literal["push", "fetch"]
    name: str = Field(max_length=_NAME_MAX)
    path: str = Field(max_length=_PATH_MAX)
    cluster: str | None = Field(default=None, max_length=_NAME_MAX)

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Raises WalRequestInvalid."""
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "line"
            raise WalRequestInvalid(f"{where}: {first['msg'].lower()}") from None


@dataclass(frozen=True, slots=True)
class Received:
    """A line, and the descriptor that came with it, which is the receiver's to close."""

    line: bytes
    descriptor: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A line, and a descriptor that goes with it, which the sender closes afterwards."""

    line: bytes
    descriptor: int | None = None


DONE = Answer(client.DONE)
ABSENT = Answer(client.ABSENT)


def found(descriptor: int) -> Answer:
    return Answer(client.FOUND, descriptor)


def failed(error: PgkeepError) -> Answer:
    """What the client prints; of a push the status is its exit status."""
    told = {
        "version": client.PROTOCOL,
        "outcome": "failed",
        "status": error.exit_status,
        "code": error.code,
        "fact": error.fact,
        "hint": error.advice,
    }
    return Answer(json.dumps(told).encode() + b"\n")


def receive(connection: socket.socket) -> Received:
    """One line. Raises WalRequestInvalid, also when the peer goes away or takes too long."""
    line, descriptors = b"", list[int]()
    try:
        while not line.endswith(b"\n"):
            data, passed, _, _ = socket.recv_fds(connection, client.MAX_LINE, 1)
            descriptors += passed
            line += data
            if not data or len(line) > client.MAX_LINE:
                raise WalRequestInvalid(f"{len(line)} bytes came that are no line")  # noqa: TRY301 - what came is closed below
        if len(descriptors) > 1:
            raise WalRequestInvalid(f"{len(descriptors)} descriptors came with one line")  # noqa: TRY301 - idem
    except (OSError, WalRequestInvalid) as error:
        close_all(descriptors)
        if isinstance(error, OSError):
            raise WalRequestInvalid(f"the client says nothing: {error}") from None
        raise
    return Received(line, descriptors[0] if descriptors else None)


def send(connection: socket.socket, answer: Answer) -> None:
    """A client that is gone asks again by itself. Closes the descriptor."""
    descriptors = [] if answer.descriptor is None else [answer.descriptor]
    try:
        sent = socket.send_fds(connection, [answer.line], descriptors)
        connection.sendall(answer.line[sent:])
    except OSError:
        pass
    finally:
        close_all(descriptors)


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
