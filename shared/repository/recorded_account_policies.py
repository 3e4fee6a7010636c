"""Account policies from a file, in the very words of Azure Resource Manager.

For accounts that have none of their own: an emulator, and tests. The file is read each time, so
that whoever changes it changes what the guard sees.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from shared.domain.lifecycle_rules import AccountProtection, ContainerPolicy, LifecycleRule
from shared.repository.account_policies import AccountPoliciesUnavailable
from shared.repository.arm_payloads import BlobService, Container, ManagementPolicy


class _Recording(BaseModel):
    """Bodies of answers; `managementPolicy` null where Azure answers ManagementPolicyNotFound."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    management_policy: ManagementPolicy | None = None
    blob_service: BlobService
    containers: tuple[Container, ...] = Field(())


class RecordedAccountPolicies:
    """See shared.repository.account_policies.AccountPolicies for the contract."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lifecycle_rules(self) -> tuple[LifecycleRule, ...]:
        policy = self._recording().management_policy
        return () if policy is None else policy.rules()

    def container_policy(self, container: str) -> ContainerPolicy:
        for one in self._recording().containers:
            if one.name == container:
                return one.policy()
        return ContainerPolicy()

    def protection(self) -> AccountProtection:
        return self._recording().blob_service.protection()

    def _recording(self) -> _Recording:
        try:
            return _Recording.model_validate_json(self._path.read_bytes())
        except OSError as error:
            raise AccountPoliciesUnavailable(
                f"cannot read {self._path}: {error.strerror}"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise AccountPoliciesUnavailable(
                f"{self._path}: {where}: {first['msg'].lower()}"
            ) from None
