"""The base class of errors that a user can fix."""


class TandemError(Exception):
    """An error whose message says what was expected, what came, and what to do."""
