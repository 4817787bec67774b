"""Runs that survive: records of what happened to them, and the one process that keeps these.

`record`, `fold`, `batch` and `backlog` are pure: what is written, what follows from it, when it is
committed, and what may be outstanding meanwhile. `store` alone knows LMDB. FORMAT.md specifies what
is on disk, and what is promised of it.
"""
