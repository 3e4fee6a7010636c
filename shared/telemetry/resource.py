"""Who sends: what every metric, span and log of a process says of its origin."""

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

from shared.version import VERSION


def resource_of(role: str) -> Resource:
    """`role` becomes AppRoleName in Azure Monitor, and service_name in Prometheus."""
    return Resource.create({SERVICE_NAME: role, SERVICE_VERSION: VERSION})
