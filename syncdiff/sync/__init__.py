"""Sync judges: the project's own, scoring over time, and SyncNet v2."""
