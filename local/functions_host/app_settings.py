"""What surrounds the app: its settings (as in local.settings.json), host.json, connections."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.functions_host.indexing import AppRefused

AppSettings = Mapping[str, str]
_PLACEHOLDER = re.compile(r"%([^%]+)%")


@dataclass(frozen=True, slots=True)
class HostJson:
    """The parts of host.json that this host plays; defaults as in Microsoft's reference."""

    route_prefix: str = "api"
    max_dequeue_count: int = 5
    queue_retry_delay_s: int = 0
    queue_batch_size: int = 16


def read_host_json(path: Path) -> HostJson:
    extensions = json.loads(path.read_text("utf-8")).get("extensions", {})
    http, queues = extensions.get("http", {}), extensions.get("queues", {})
    if queues.get("messageEncoding", "base64") != "base64":
        raise AppRefused("host.json: this host reads queue messages in base64 only")
    return HostJson(
        route_prefix=http.get("routePrefix", "api").strip("/"),
        max_dequeue_count=int(queues.get("maxDequeueCount", 5)),
        queue_retry_delay_s=_seconds(queues.get("visibilityTimeout", "00:00:00")),
        queue_batch_size=int(queues.get("batchSize", 16)),
    )


def resolve(text: str, settings: AppSettings) -> str:
    """Replace every `%NAME%` by the app setting NAME. Raises AppRefused when there is none."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in settings:
            raise AppRefused(f"app setting {match[1]} is not set, but {text!r} needs it")
        return settings[match[1]]

    return _PLACEHOLDER.sub(value, text)


def open_blobs(connection: str, settings: AppSettings) -> BlobServiceClient:
    """At `<connection>__blobServiceUri`, as in Azure.

    `__accountKey` and `__caFile` of the emulator are this host's own: in Azure
    `__credential=managedidentity` has their place.
    """
    url, key, verify = _endpoint(connection, "blobServiceUri", settings)
    return BlobServiceClient(url, credential=key, connection_verify=verify)


def open_queues(connection: str, settings: AppSettings) -> QueueServiceClient:
    """As `open_blobs`, with `<connection>__queueServiceUri`."""
    url, key, verify = _endpoint(connection, "queueServiceUri", settings)
    return QueueServiceClient(url, credential=key, connection_verify=verify)


def _endpoint(connection: str, suffix: str, settings: AppSettings) -> tuple[str, str, str | bool]:
    try:
        url, key = settings[f"{connection}__{suffix}"], settings[f"{connection}__accountKey"]
    except KeyError as error:
        raise AppRefused(f"connection {connection}: app setting {error} is not set") from None
    return url, key, settings.get(f"{connection}__caFile") or True


def _seconds(text: str) -> int:
    hours, minutes, seconds = (int(part) for part in text.split(":"))
    return hours * 3600 + minutes * 60 + seconds
