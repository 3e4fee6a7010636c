"""How pgkeep talks to Azure Storage, blobs and queues alike: transport, patience, refusals."""
