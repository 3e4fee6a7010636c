"""Azure Resource Manager's answers about a storage account, as values of the guard.

Members that the guard does not judge are ignored; an action or a filter that it does not know is
as well, but a member of another type than documented is refused. Shapes: the examples of
Microsoft.Storage 2024-01-01 in Azure's API specifications.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from shared.domain.lifecycle_rules import (
    BLOCK_BLOB,
    AccountProtection,
    AgeCondition,
    ContainerPolicy,
    LifecycleAction,
    LifecycleRule,
)


class _Payload(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class _Ages(_Payload):
    modification: float | None = Field(None, alias="daysAfterModificationGreaterThan")
    creation: float | None = Field(None, alias="daysAfterCreationGreaterThan")
    last_access: float | None = Field(None, alias="daysAfterLastAccessTimeGreaterThan")
    tier_change: float | None = Field(None, alias="daysAfterLastTierChangeGreaterThan")

    def condition(self) -> AgeCondition:
        return AgeCondition(self.modification, self.creation, self.last_access, self.tier_change)


class _BaseBlob(_Payload):
    delete: _Ages | None = None
    tier_to_archive: _Ages | None = None
    tier_to_cold: _Ages | None = None
    tier_to_cool: _Ages | None = None


class _Actions(_Payload):
    """Snapshots and previous versions are not what a restore reads."""

    base_blob: _BaseBlob | None = None


class _Tag(_Payload):
    name: str
    value: str


class _Filters(_Payload):
    blob_types: tuple[str, ...] = (BLOCK_BLOB,)
    prefix_match: tuple[str, ...] | None = None
    blob_index_match: tuple[_Tag, ...] | None = None


class _Definition(_Payload):
    actions: _Actions
    filters: _Filters = Field(default_factory=_Filters)


class _Rule(_Payload):
    name: str
    enabled: bool = True
    definition: _Definition

    def rule(self) -> LifecycleRule:
        filters = self.definition.filters
        return LifecycleRule(
            name=self.name,
            actions=self._conditions(),
            enabled=self.enabled,
            prefixes=filters.prefix_match or (),
            blob_types=filters.blob_types,
            tags=tuple((tag.name, tag.value) for tag in filters.blob_index_match or ()),
        )

    def _conditions(self) -> dict[LifecycleAction, AgeCondition]:
        base = self.definition.actions.base_blob or _BaseBlob()
        ages = {
            LifecycleAction.DELETE: base.delete,
            LifecycleAction.ARCHIVE: base.tier_to_archive,
            LifecycleAction.COLD: base.tier_to_cold,
            LifecycleAction.COOL: base.tier_to_cool,
        }
        return {action: one.condition() for action, one in ages.items() if one is not None}


class _Rules(_Payload):
    rules: tuple[_Rule, ...] = ()


class _PolicyProperties(_Payload):
    policy: _Rules


class ManagementPolicy(_Payload):
    """GET …/managementPolicies/default."""

    properties: _PolicyProperties

    def rules(self) -> tuple[LifecycleRule, ...]:
        return tuple(one.rule() for one in self.properties.policy.rules)


class _ImmutabilityProperties(_Payload):
    immutability_period_since_creation_in_days: int | None = None
    state: Literal["Locked", "Unlocked"] | None = None
    allow_protected_append_writes: bool | None = None
    allow_protected_append_writes_all: bool | None = None


class _Immutability(_Payload):
    properties: _ImmutabilityProperties = Field(default_factory=_ImmutabilityProperties)


class _HoldTag(_Payload):
    tag: str


class _LegalHold(_Payload):
    has_legal_hold: bool = False
    tags: tuple[_HoldTag, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """A hold without a tag would be a hold all the same."""
        if not self.has_legal_hold:
            return ()
        return tuple(one.tag for one in self.tags or ()) or ("unnamed",)


class _Switch(_Payload):
    enabled: bool = False
    days: int | None = None


def _nothing_is_off(value: object) -> object:
    return _Switch() if value is None else value


_AnySwitch = Annotated[_Switch, BeforeValidator(_nothing_is_off)]


class _ContainerProperties(_Payload):
    immutability_policy: _Immutability | None = None
    legal_hold: _LegalHold | None = None
    immutable_storage_with_versioning: _AnySwitch = Field(default_factory=_Switch)


class Container(_Payload):
    """GET …/blobServices/default/containers/<name>."""

    name: str
    properties: _ContainerProperties

    def policy(self) -> ContainerPolicy:
        worm = (self.properties.immutability_policy or _Immutability()).properties
        # A policy that was withdrawn is still told of, with a period of 0.
        days = worm.immutability_period_since_creation_in_days or None
        return ContainerPolicy(
            immutability_days=days,
            locked=days is not None and worm.state == "Locked",
            legal_holds=(self.properties.legal_hold or _LegalHold()).names(),
            protected_append=bool(
                worm.allow_protected_append_writes or worm.allow_protected_append_writes_all
            ),
            version_level=self.properties.immutable_storage_with_versioning.enabled,
        )


class _LastAccess(_Payload):
    enable: bool = False


class _ServiceProperties(_Payload):
    delete_retention_policy: _AnySwitch = Field(default_factory=_Switch)
    is_versioning_enabled: bool | None = None
    last_access_time_tracking_policy: _LastAccess | None = None


class BlobService(_Payload):
    """GET …/blobServices/default."""

    properties: _ServiceProperties

    def protection(self) -> AccountProtection:
        told = self.properties
        soft = told.delete_retention_policy
        return AccountProtection(
            versioning=bool(told.is_versioning_enabled),
            soft_delete_days=(soft.days or 0) if soft.enabled else 0,
            access_tracked=(told.last_access_time_tracking_policy or _LastAccess()).enable,
        )
