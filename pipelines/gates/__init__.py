"""The checks that must pass before a version is published: each has a figure, a limit, and a verdict."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import TandemError

RELATIONS = {"<=": operator.le, ">=": operator.ge}


class GateError(TandemError):
    """A check failed: nothing was published. `checks` are all that were made, passed or not."""

    def __init__(self, message: str, checks: Sequence[Check] = ()) -> None:
        super().__init__(message)
        self.checks = tuple(checks)


@dataclass(frozen=True)
class Check:
    """One figure against its limit."""

    gate: str
    name: str
    figure: float
    relation: str
    limit: float
    otherwise: str = ""
    """The consequence of a failure; "" refuses the version."""

    @property
    def passed(self) -> bool:
        """Return True if the figure keeps the limit, to nine digits; NaN never does."""
        at_limit = math.isclose(self.figure, self.limit, rel_tol=1e-9)
        return at_limit or bool(RELATIONS[self.relation](self.figure, self.limit))

    @property
    def refuses(self) -> bool:
        """Return True if it keeps the version from being published."""
        return not self.passed and not self.otherwise

    def __str__(self) -> str:
        verdict = "FAIL" if self.refuses else "ok  " if self.passed else "note"
        limit = f"(limit {self.relation} {self.limit:.6g})"
        consequence = "" if self.passed or self.refuses else f": {self.otherwise}"
        return f"{verdict} {self.gate}: {self.name} {self.figure:.6g} {limit}{consequence}"


def require(checks: Sequence[Check]) -> None:
    """Raise `GateError` naming every check that refuses the version, with its figure and limit."""
    failed = [str(check) for check in checks if check.refuses]
    if failed:
        raise GateError(
            "a gate refused this version; what is served stays as it is\n  " + "\n  ".join(failed), checks
        )
