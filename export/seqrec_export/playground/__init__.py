"""A page to try the models of a running server."""
