"""Who calls, and what they may do: deny by default, whatever the host in front of us let through.

In Azure, App Service authentication ("Easy Auth") validates the tokens of Entra ID and names the
caller in a header, which it strips from what clients send. We believe the header only while the
platform says that it does this, and judge tenant and audience again. A stack for development has
tokens of its own, signed with a key whose public half the settings name.
"""

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import azure.functions as func
import jwt

from functions.callers import Caller, Role, Unauthenticated
from functions.wiring import Services
from shared.errors import SettingsInvalid
from shared.settings import EasyAuth, LocalTokens

PRINCIPAL_HEADER: Final = "x-ms-client-principal"
# A principal holds a user's groups, too; beyond this it is none of Easy Auth's making.
_PRINCIPAL_LIMIT: Final = 64 * 1024
_ALGORITHM: Final = "EdDSA"
_TOKEN_CLAIMS: Final = ("exp", "iat", "aud", "iss", "sub", "roles")
_TOKEN_LIFE_S: Final = 24 * 3600
_NAME_LENGTH: Final = 100
_ID: Final = re.compile(r"[\x21-\x7e]{1,120}")

# Easy Auth writes the long names of claims, or, where mapping is switched off, the token's own.
_WS: Final = "http://schemas.microsoft.com/identity/claims"
_TENANT: Final = ("tid", f"{_WS}/tenantid")
_OBJECT: Final = ("oid", f"{_WS}/objectidentifier")
_SUBJECT: Final = (
    "sub",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
)
_NAME: Final = ("preferred_username", "name")
_ROLES: Final = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")


def caller(services: Services, request: func.HttpRequest) -> Caller:
    """Raises Unauthenticated; its fact is for the log alone."""
    match services.settings.access:
        case EasyAuth() as access:
            return _of_easy_auth(access, request, behind_it=services.behind_easy_auth)
        case LocalTokens() as access:
            return _of_local_token(access, request, services.clock().timestamp())
        case None:
            raise Unauthenticated("the settings have no section [access]")


def _of_easy_auth(access: EasyAuth, request: func.HttpRequest, *, behind_it: bool) -> Caller:
    if not behind_it:
        raise Unauthenticated("app service authentication is off, so nobody vouches for callers")
    claims = _claims(request.headers.get(PRINCIPAL_HEADER))
    tenant, audience = _one(claims, _TENANT), _one(claims, ("aud",))
    if tenant != access.tenant_id:
        raise Unauthenticated("the token is of another tenant")
    if audience not in access.audiences:
        raise Unauthenticated("the token is for another audience")
    roles = _roles(_all(claims, _ROLES))
    if _is_application(claims):
        roles -= {Role.APPROVER}  # an approval is a second person's
    name = next((found for kind in _NAME if (found := _all(claims, (kind,)))), [""])[0]
    return _caller(_one(claims, _OBJECT), name, roles)


def _claims(header: str | None) -> Sequence[tuple[str, str]]:
    """Type and value of each claim in the principal that the platform sends."""
    if not header or len(header) > _PRINCIPAL_LIMIT:
        raise Unauthenticated("the platform names no caller")
    try:
        principal = json.loads(base64.b64decode(header, validate=True))
        if principal["auth_typ"] != "aad":
            raise Unauthenticated("the caller did not come by entra id")
        claims = [(claim["typ"], claim["val"]) for claim in principal["claims"]]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        raise Unauthenticated("the platform's principal does not read") from None
    if not all(isinstance(part, str) for claim in claims for part in claim):
        raise Unauthenticated("the platform's principal holds claims that are no text")
    return claims


def _is_application(claims: Sequence[tuple[str, str]]) -> bool:
    """`idtyp` is an optional claim; without it, an application's token has its own id as subject
    (learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
    """
    kind = _all(claims, ("idtyp",))
    if kind:
        return kind != ["user"]
    subjects = set(_all(claims, _SUBJECT))
    return not subjects or not subjects.isdisjoint(_all(claims, _OBJECT))


def _one(claims: Sequence[tuple[str, str]], kinds: Collection[str]) -> str:
    """The claim that there must be, once: of two, nobody knows which one was checked."""
    found = _all(claims, kinds)
    if len(found) != 1:
        raise Unauthenticated(f"the principal has {len(found)} claims {min(kinds)}, not one")
    return found[0]


def _all(claims: Sequence[tuple[str, str]], kinds: Collection[str]) -> list[str]:
    return [value for kind, value in claims if kind in kinds]


def _of_local_token(access: LocalTokens, request: func.HttpRequest, now: float) -> Caller:
    claims = _verified(access, _bearer(request))
    begins, ends = claims["iat"], claims["exp"]
    if not begins <= now < ends <= begins + _TOKEN_LIFE_S:
        raise Unauthenticated("the token is not yet valid, no longer, or for too long")
    roles = claims["roles"]
    if not isinstance(roles, list):
        raise Unauthenticated("the token's roles are no list")
    return _caller(claims["sub"], str(claims.get("name", claims["sub"])), _roles(roles))


def _verified(access: LocalTokens, token: str) -> Mapping[str, Any]:
    """Its claims, authenticated; times are judged by the clock that is given to us."""
    try:
        key = access.public_key.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read access.public_key: {error}") from None
    try:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=access.audience,
            issuer=access.issuer,
            options={
                "require": list(_TOKEN_CLAIMS),
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "strict_aud": True,
            },
        )
    except jwt.InvalidTokenError as error:
        raise Unauthenticated(f"the token is refused: {type(error).__name__}") from None
    if not all(isinstance(claims[time], int | float) for time in ("iat", "exp")):
        raise Unauthenticated("the token's times are no numbers")
    return claims


def _bearer(request: func.HttpRequest) -> str:
    scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("there is no bearer token")
    return token


def _roles(given: Collection[object]) -> frozenset[Role]:
    """Roles that are not ours say nothing about us."""
    return frozenset(role for role in Role if role.value in given)


def _caller(identity: object, name: str, roles: frozenset[Role]) -> Caller:
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise Unauthenticated("the caller's id is none")
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:_NAME_LENGTH])
    return Caller(identity, shown, roles)
