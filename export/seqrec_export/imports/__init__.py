"""Networks that were trained elsewhere, as runs of this package."""
