"""The one exception that users of the library are meant to catch."""


class SeqrecError(Exception):
    """A user's mistake: says what is wrong, what was found, and what to do about it."""
