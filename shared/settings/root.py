"""The whole settings file as one value."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.errors import SettingsInvalid
from shared.settings.access import Access, LocalTokens
from shared.settings.account import Account
from shared.settings.cluster import ClusterSettings, RestoreTarget
from shared.settings.http import Http
from shared.settings.inheritance import with_identity, with_policies
from shared.settings.policy import Policy
from shared.settings.sections import (
    AzureRepository,
    Catalogue,
    Credential,
    DirectoryRepository,
    Drill,
    Fleet,
    Keys,
    Queues,
    Section,
    Wal,
    Worker,
)


class Settings(Section):
    """The whole file. Sections that a verb does not need may be left out."""

    profile: Literal["development", "production"] = Field(
        "production", description="production refuses keys with a single recipient"
    )
    identity: Credential | None = Field(
        None, description="what every credential is that does not say otherwise"
    )
    repository: Annotated[AzureRepository | DirectoryRepository, Field(discriminator="type")]
    queues: Queues | None = None
    catalogue: Catalogue | None = None
    access: Access | None = None
    http: Http = Field(default_factory=Http)
    account: Account | None = None
    keys: Keys = Field(default_factory=Keys)
    worker: Worker = Field(default_factory=Worker)
    wal: Wal = Field(default_factory=Wal)
    drill: Drill = Field(default_factory=Drill)
    fleet: Fleet = Field(default_factory=Fleet)
    policy: Policy = Field(default_factory=Policy)
    policies: Mapping[str, Policy] = Field(default_factory=dict)
    cluster: tuple[ClusterSettings, ...] = ()
    target: tuple[RestoreTarget, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: object) -> object:
        """Each cluster's table is laid over the policy that it names, and that one over `[policy]`;
        each credential over `[identity]`.

        Tables that do not read are left for the validation of the fields, which names their keys.
        """
        return with_identity(with_policies(values)) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, named in (("clusters", self.cluster), ("targets", self.target)):
            names = [one.name for one in named]
            if len(names) != len(set(names)):
                raise ValueError(f"two {what} have one name")
        return self

    @model_validator(mode="after")
    def _holds_are_of_one_cluster(self) -> Self:
        """A hold on what is not there refuses the expiry of each cluster that inherits it."""
        if any(policy.retention.hold for policy in (self.policy, *self.policies.values())):
            raise ValueError("`hold` is about one cluster: it belongs to [cluster.retention]")
        return self

    @model_validator(mode="after")
    def _access_fits_the_profile(self) -> Self:
        if self.profile == "production" and isinstance(self.access, LocalTokens):
            raise ValueError("access of type 'local' is for the development profile")
        return self

    @property
    def has_secondary(self) -> bool:
        """Whether the repository can also be read in another region."""
        repository = self.repository
        return isinstance(repository, AzureRepository) and repository.secondary_url is not None

    def cluster_named(self, name: str) -> ClusterSettings:
        """Raises SettingsInvalid when the file has no such cluster."""
        for cluster in self.cluster:
            if cluster.name == name:
                return cluster
        known = ", ".join(cluster.name for cluster in self.cluster) or "none"
        raise SettingsInvalid(f"no cluster {name!r} in the settings (known: {known})")
