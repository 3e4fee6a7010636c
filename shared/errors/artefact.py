"""Stored bytes that are not what was written."""

from shared.errors.families import Corrupt


class SegmentCorrupt(Corrupt):
    """A sealed object that does not open: changed, cut, moved or sealed under another key."""

    code = "segment-corrupt"


class FrameCorrupt(Corrupt):
    """A compressed frame or a frame table that is not what was written, or claims too much."""

    code = "frame-corrupt"


class TarMalformed(Corrupt):
    """A tar stream whose headers or lengths do not hold together."""

    code = "tar-malformed"


class TarMemberRefused(Corrupt):
    """A tar member that PostgreSQL never sends: it could write outside its directory."""

    code = "tar-member-refused"


class PartSizeDiffers(Corrupt):
    """A blob whose size is not the one that its signed document states."""

    code = "part-size-differs"


class ChainBroken(Corrupt):
    """A document that names another by a digest which that one does not have, or no longer."""

    code = "chain-broken"
    hint = "A document was replaced or removed: look at who can write to the repository."
