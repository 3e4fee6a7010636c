"""One verb, one file; each reads as a story."""
