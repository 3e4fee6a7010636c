"""The refusal of every plan that leads to a data directory."""

from shared.errors import Refused


class NotRestorable(Refused):
    """The plan cannot be made; the fact lists every reason."""

    code = "not-restorable"
    hint = "Choose another backup with `pgkeep list`; this one cannot become a running cluster."
