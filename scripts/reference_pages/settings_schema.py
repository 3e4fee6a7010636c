"""pgkeep.schema.json: the JSON schema of pgkeep.toml, for editors that complete and check."""

import json

from shared.settings import Settings

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def text() -> str:
    """As the settings read before clusters inherit: what a policy says need not be said again."""
    schema = Settings.model_json_schema()
    return json.dumps({"$schema": _DIALECT, **schema, "title": "pgkeep.toml"}, indent=2) + "\n"
