"""Repeating one request to Azure Storage: with growing, jittered pauses, within a budget of time.

The SDK's own ExponentialRetry counts attempts, not seconds, does not repeat 429, and ignores
Retry-After and checksum refusals; hence a policy of our own in its place in the pipeline. A
request's body is bytes held in memory, so every repetition sends the same bytes.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random, SystemRandom
from threading import Event
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import HTTPPolicy

from shared.azure_storage.refusals import causes

# 429 and 503 ServerBusy are Azure's throttling answers; the others pass or fail by chance.
_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
# 400: storage computed another checksum over the body than we sent. The bytes were hurt in transit.
_HURT_IN_TRANSIT = frozenset({"Md5Mismatch", "Crc64Mismatch"})


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Patience for one request. Pauses double from the first to the longest; all in seconds.

    The default outlasts a failover inside a storage stamp, and a restart of the emulator.
    """

    total_s: float = 120.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 10.0

    def pauses(self, rng: Random) -> Iterator[float]:
        """Endless; each lies in the upper half of its step: clients shall not march in time."""
        ceiling = self.first_pause_s
        while True:
            yield rng.uniform(ceiling / 2, ceiling)
            ceiling = min(2 * ceiling, self.longest_pause_s)


class PatientRetry(HTTPPolicy[Any, Any]):
    """The retry policy of a pipeline: returns the last answer, or raises the last error."""

    def __init__(
        self,
        budget: RetryBudget,
        *,
        rng: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        super().__init__()
        self._budget = budget
        self._rng = rng or SystemRandom()
        self._clock = clock
        self._wait = wait or Event().wait

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        options = request.context.options
        # StorageHosts leaves these for the retry policy; the transport does not know them.
        mode = options.pop("location_mode", None)
        for unused in ("hosts", "retry_to_secondary"):
            options.pop(unused, None)
        deadline = self._clock() + self._budget.total_s
        pauses = self._budget.pauses(self._rng)
        outcome = self._attempt(request)
        while _worth_repeating(outcome):
            pause = max(next(pauses), _retry_after(outcome))
            if self._clock() + pause > deadline:
                break
            self._wait(pause)
            outcome = self._attempt(request)
        if isinstance(outcome, AzureError):
            raise outcome
        outcome.http_response.location_mode = mode
        return outcome

    def _attempt(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any] | AzureError:
        try:
            return self.next.send(request)
        except AzureError as error:
            return error


def _worth_repeating(outcome: PipelineResponse[Any, Any] | AzureError) -> bool:
    if isinstance(outcome, AzureError):
        # A credential repeats by itself; a certificate does not become valid by waiting.
        hopeless = isinstance(outcome, ClientAuthenticationError) or any(
            isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(outcome)
        )
        return not hopeless
    answer = outcome.http_response
    return (
        answer.status_code in _PASSING_STATUSES
        or answer.headers.get("x-ms-error-code") in _HURT_IN_TRANSIT
    )


def _retry_after(outcome: PipelineResponse[Any, Any] | AzureError) -> float:
    """Seconds that the service asks for; 0 when it does not say, or says a date."""
    if isinstance(outcome, AzureError):
        return 0.0
    text = outcome.http_response.headers.get("Retry-After") or ""
    return float(text) if text.isdecimal() else 0.0
