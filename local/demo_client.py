"""The demo as a caller of the function app: HTTP with a token, JSON both ways."""

import json
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from shared.errors import Unavailable

_PATIENCE_S = 30


class FunctionAppRefused(Unavailable):
    """The function app did not answer, or not as the demo expects."""

    code = "function-app-refused"
    hint = "functions.log in the demo's folder tells why."


def call(url: str, token: str, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
    """The answer's JSON. Raises FunctionAppRefused unless the status is 2xx."""
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    content = None if body is None else json.dumps(body)
    try:
        with closing(HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE_S)) as connection:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            text = response.read().decode()
    except (OSError, HTTPException) as error:
        raise FunctionAppRefused(f"{method} {path}: {error}") from None
    if response.status // 100 != 2:  # noqa: PLR2004 - the statuses of success
        raise FunctionAppRefused(f"{method} {path}: {response.status} {text[:500]}")
    return json.loads(text)
