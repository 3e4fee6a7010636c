"""Bytes to bytes: stages between PostgreSQL's tar stream and blobs; none owns a socket or a clock.

backup:   tar_walk (what is where) + seekable_zstd (frames) → sealed_stream (segments) → block_plan
restore:  sealed_stream → seekable_zstd → tar_walk
"""
