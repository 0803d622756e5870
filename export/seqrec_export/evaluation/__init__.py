"""Metrics, and the rank of held-out items among the whole catalogue."""
