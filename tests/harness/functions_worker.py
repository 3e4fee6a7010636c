"""Runs as a process of its own: index a function app, and invoke it, with Microsoft's own runtime.

    python -P functions_worker.py RUNTIME APP < calls.json

RUNTIME is the folder into which scripts/setup put azure-functions-runtime; its package `tests`
must not meet ours, so this process is started elsewhere and imports nothing of the project but
APP. A call is {"function", "binding", "http": {…}} or {…, "string": …}; prints one JSON object:
the functions, or why the app was refused, and an answer per call.
"""

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any

RUNTIME, APP = sys.argv[1:3]
sys.path.insert(0, RUNTIME)

from azure_functions_runtime import handle_event  # type: ignore[import-not-found]  # noqa: E402

from tests import protos  # type: ignore[attr-defined]  # noqa: E402


def request(**message: Any) -> SimpleNamespace:
    properties = {"host": "127.0.0.1", "protos": protos}
    return SimpleNamespace(request=protos.StreamingMessage(**message), properties=properties)


async def index() -> dict[str, Any]:
    init = protos.WorkerInitRequest(host_version="4", function_app_directory=APP)
    answer = await handle_event.worker_init_request(request(worker_init_request=init))
    if answer.result.status != protos.StatusResult.Success:
        return {"refused": answer.result.exception.message, "functions": {}}
    listed = await handle_event.functions_metadata_request(
        request(functions_metadata_request=protos.FunctionsMetadataRequest())
    )
    functions = listed.function_metadata_results
    return {
        "refused": None,
        "functions": {f.name: [json.loads(b) for b in f.raw_bindings] for f in functions},
        "ids": {f.name: f.function_id for f in functions},
    }


async def invoke(function_id: str, call: dict[str, Any]) -> dict[str, Any]:
    if http := call.get("http"):
        body = protos.TypedData(bytes=http.pop("body", "").encode())
        data = protos.TypedData(http=protos.RpcHttp(**http, body=body))
    else:
        data = protos.TypedData(string=call["string"])
    binding = protos.ParameterBinding(name=call["binding"], data=data)
    invocation = protos.InvocationRequest(
        invocation_id=call["function"], function_id=function_id, input_data=[binding]
    )
    answer = await handle_event.invocation_request(request(invocation_request=invocation))
    if answer.result.status != protos.StatusResult.Success:
        return {"raised": answer.result.exception.message}
    response = answer.return_value.http
    return {
        "raised": None,
        "status": response.status_code,
        "headers": dict(response.headers),
        "body": response.body.bytes.decode(),
    }


async def main() -> dict[str, Any]:
    sys.path.insert(1, APP)
    found = await index()
    calls = json.load(sys.stdin)
    answers = [await invoke(found["ids"][call["function"]], call) for call in calls]
    return {**found, "answers": answers}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))  # noqa: T201 - the answer to the test
