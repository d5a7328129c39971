from __future__ import annotations

import numpy as np
import pytest

import models.base
from models import twins
from models.base import Model
from models.data import Rows
from models.language import data
from models.signature import decode_text, encode_text

TEXTS = ["good morning", "", "żółć " * 20, "доброе утро"]


@pytest.fixture(scope="module")
def language() -> Model:
    return models.base.load("language")


def rows(texts: list[str]) -> Rows:
    return Rows({"text": np.stack([encode_text(text, 48) for text in texts])}, np.zeros(len(texts), np.int64))


def test_the_networks_are_one_for_empty_and_cut_texts_too(language: Model) -> None:
    twins.check(language, rows(TEXTS))
    assert 80_000 < models.base.count_parameters(language.initial_weights(1)) < 95_000


def test_padding_changes_no_answer_and_indices_out_of_range_are_clipped(language: Model) -> None:
    network = language.build_torch().eval()
    language.to_torch(twins.drawn(language.initial_weights(1)), network)
    text = rows(["good morning"]).inputs["text"]
    other = text.copy()
    other[0, 20:] = -5
    np.testing.assert_array_equal(
        twins.run_torch(network, {"text": text}), twins.run_torch(network, {"text": other})
    )
    high, clipped = np.full((1, 48), 10**6, np.int32), np.full((1, 48), 255, np.int32)
    np.testing.assert_array_equal(
        twins.run_torch(network, {"text": high}), twins.run_torch(network, {"text": clipped})
    )


def test_a_text_is_its_first_bytes_and_comes_back() -> None:
    assert encode_text("ab", 4).tolist() == [97, 98, 0, 0]
    assert encode_text("abcdef", 4).tolist() == [97, 98, 99, 100]
    assert decode_text(encode_text("żółć", 48)) == "żółć"
    assert decode_text(encode_text("aż", 2)) == "a", "half a letter is none"


@pytest.mark.slow
def test_no_word_and_no_phrase_is_in_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LANGUAGES", ("en", "de"))
    arrays = data.draw()
    phrases = {split: {decode_text(text) for text in arrays[f"{split}_text"]} for split in ("train", "test")}
    assert len(phrases["train"]) == len(arrays["train_text"])
    assert not phrases["train"] & phrases["test"]
    # The last word of a phrase may be cut.
    words = {
        split: {word for phrase in own for word in phrase.split()[:-1]} for split, own in phrases.items()
    }
    shared = words["train"] & words["test"]
    assert len(shared) <= 0.001 * len(words["test"]), sorted(shared)[:10]
