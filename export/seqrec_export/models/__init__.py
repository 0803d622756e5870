"""The recommenders, and what the rest of the package knows about one."""
