"""Data keys: made, wrapped to public keys, unwrapped with private ones; and who signs documents."""
