"""One call of one function: bind the trigger's value, give it a context, log how it ended."""

import asyncio
import inspect
import logging
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from local.functions_host.indexing import HostedFunction

LOG = logging.getLogger("functions_host")


def invoke(function: HostedFunction, value: object) -> Any:  # noqa: ANN401 - whatever it returns
    """The function's result. Its exception passes through, after it was logged."""
    # The part of func.Context that does not need the real host.
    context = SimpleNamespace(function_name=function.name, invocation_id=str(uuid4()))
    arguments: dict[str, Any] = {str(function.trigger["name"]): value}
    if "context" in inspect.signature(function.call).parameters:
        arguments["context"] = context
    try:
        result = function.call(**arguments)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except Exception:
        LOG.exception("%s %s failed", function.name, context.invocation_id)
        raise
    return result
