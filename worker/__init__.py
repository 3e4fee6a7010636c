"""Edge 2, the container: `pgkeep <verb>` moves the bytes between PostgreSQL and the repository."""
