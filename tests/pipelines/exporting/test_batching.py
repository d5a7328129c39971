"""Random models in numpy: those that answer each row for itself pass, and those that mix rows are found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from models.signature import Arrays
from pipelines.exporting.conformance import company_difference as difference

Array = NDArray[np.float64]
Mixing = Callable[[Array], Array]
LIMIT = 1e-5


def softmax(values: Array, axis: int) -> Array:
    odds = np.exp(values - values.max(axis=axis, keepdims=True))
    result: Array = odds / odds.sum(axis=axis, keepdims=True)
    return result


def int8(values: Array, axis: int | None) -> Array:
    """Through 8 bits and back, by a scale that is read off the values themselves."""
    scale = np.abs(values).max(axis=axis, keepdims=True) / 127
    result: Array = np.round(values / np.where(scale, scale, 1)) * scale
    return result


ROW_BY_ROW: dict[str, Mixing] = {
    "nothing": lambda x: x,
    "softmax": lambda x: softmax(x, 1),
    "mean": lambda x: x - x.mean(axis=1, keepdims=True),
    "int8": lambda x: int8(x, 1),
    "static int8": lambda x: np.round(x.clip(-1, 1) * 127) / 127,
}
MIXED: dict[str, Mixing] = {
    "softmax": lambda x: softmax(x, 0),
    "mean": lambda x: x - x.mean(axis=0),
    "int8": lambda x: int8(x, None),
    "sorted": lambda x: np.sort(x, axis=0),
    "place": lambda x: x + np.arange(len(x))[:, np.newaxis],
    "number": lambda x: x + len(x),
    "large runs": lambda x: x + (len(x) > 32),
    "a little": lambda x: x + 1e-3 * np.tanh(x).mean(axis=0),
}
OTHER_COUNTS: dict[str, Mixing] = {
    "one fewer": lambda x: x[: max(1, len(x) - 1)],
    "unique": lambda x: np.unique(x, axis=0),
    "summed": lambda x: x.sum(axis=0, keepdims=True),
    "one more": lambda x: np.concatenate([x, x[:1]]),
}


def network(seed: int, mixing: Mixing) -> Callable[[Sequence[Arrays]], list[Arrays]]:
    """Random weights, with `mixing` before or after them."""
    generator = np.random.default_rng(seed)
    first = bool(generator.integers(2))
    weights = generator.normal(size=(9, 4))

    def answer(batches: Sequence[Arrays]) -> list[Arrays]:
        outputs: list[Arrays] = []
        for inputs in batches:
            images = inputs["image"]
            rows = images.reshape(len(images), -1).astype(np.float64)
            mixed = mixing(rows) @ weights if first else mixing(rows @ weights)
            with np.errstate(over="ignore", invalid="ignore"):
                logits = mixed.astype(np.float32)
                outputs.append({"logits": logits, "probabilities": softmax(mixed, 1).astype(np.float32)})
        return outputs

    return answer


def pictures(seed: int, number: int) -> Arrays:
    return {"image": np.random.default_rng(seed).random((number, 3, 3, 1), np.float32)}


SEEDS = pytest.mark.parametrize(("seed", "number"), [(1, 1), (2, 8), (3, 20)])


@SEEDS
@pytest.mark.parametrize("mixing", ROW_BY_ROW)
def test_a_model_that_answers_each_row_for_itself_passes(seed: int, number: int, mixing: str) -> None:
    assert difference(network(seed, ROW_BY_ROW[mixing]), pictures(seed, number)) <= LIMIT


@SEEDS
@pytest.mark.parametrize("mixing", MIXED)
def test_a_model_that_mixes_rows_is_found_out(seed: int, number: int, mixing: str) -> None:
    assert difference(network(seed, MIXED[mixing]), pictures(seed, number)) > LIMIT


@SEEDS
@pytest.mark.parametrize("mixing", OTHER_COUNTS)
def test_a_model_that_answers_with_another_number_of_rows_is_found_out(
    seed: int, number: int, mixing: str
) -> None:
    assert difference(network(seed, OTHER_COUNTS[mixing]), pictures(seed, number)) == np.inf


def test_a_model_that_keeps_state_between_runs_is_found_out() -> None:
    runs = count()
    answer = network(1, lambda x: x + next(runs))
    assert difference(answer, pictures(1, 8)) > LIMIT


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_row_that_breaks_its_neighbours_is_found_out(broken: float) -> None:
    answer = network(1, lambda x: x + (broken if np.abs(x).max() > 1e30 else 0))
    assert difference(answer, pictures(1, 8)) == np.inf
