"""The release of this code, as documents and messages state it."""

VERSION = "0.1.0"
