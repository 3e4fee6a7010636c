"""Somebody who calls the HTTP interface, by the roles that were given to them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.domain.restore_request import Person
from shared.errors import Denied


class Role(StrEnum):
    """App roles: their values are what Entra ID and local tokens call them."""

    READER = "reader"
    OPERATOR = "operator"
    APPROVER = "approver"


EVERYBODY: Final = frozenset(Role)


class Unauthenticated(Denied):
    """A request by nobody we know: no token, or none that counts here."""

    code = "unauthenticated"
    http_status = 401
    hint = "Send a valid token: docs/how-to/grant-access.md."


class Forbidden(Denied):
    """A caller who is known and lacks the role."""

    code = "forbidden"
    hint = "docs/how-to/grant-access.md tells how a role is given."


@dataclass(frozen=True, slots=True)
class Caller:
    """`id` never changes and is never reused; `name` is for people who read it."""

    id: str
    name: str
    roles: frozenset[Role]

    @property
    def person(self) -> Person:
        return Person(self.id, self.name)

    def demand(self, *roles: Role) -> None:
        """Raises Forbidden unless the caller has one of the roles."""
        if not self.roles & set(roles):
            raise Forbidden(f"this needs the role {' or '.join(sorted(roles))}")
