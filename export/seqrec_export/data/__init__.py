"""Logs, as read, as histories, and as requests that a caller would send."""
