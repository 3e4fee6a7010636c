"""The repository: blobs, their names, the documents in them and the signatures on those."""
