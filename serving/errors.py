"""The base of all errors that a user can mend."""


class TandemError(Exception):
    """Something is not as it must be, and the message says what was expected, what came, and what to do."""
