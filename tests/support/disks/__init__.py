"""Disks that fail, fill up and lose what was not synced, for the tests of the journal."""
