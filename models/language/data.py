"""Phrases drawn from word lists: those of the package wordfreq (Robyn Speer, 2022; data CC BY-SA 4.0)."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data import Rows
from models.signature import encode_text

from .spec import LANGUAGES, LENGTH

TRAIN, TEST = 6_000, 800
"""Phrases of each language."""
WORDS = 30_000
"""The most frequent words of a language, from which phrases are drawn."""
TEST_SHARE = 5
"""One of so many words is kept for the test phrases."""
FLATTENING = 0.5
"""The exponent of a word's frequency: by frequency itself, a handful of words would make up half of every phrase."""
FEWEST, MOST = 2, 6
"""Words of a phrase."""


def load(cache: Path) -> tuple[Rows, Rows]:
    """Return training and test phrases, int32 [N, 48] with labels int64 [N]; no word is in both."""
    path = cache / "phrases.npz"
    if not path.exists():
        beside = path.with_name(".incoming.npz")
        np.savez(beside, **draw())  # type: ignore[arg-type]
        beside.replace(path)
    with np.load(path) as file:
        train, test = (
            Rows({"text": file[f"{split}_text"]}, file[f"{split}_label"]) for split in ("train", "test")
        )
    return train, test


def draw() -> dict[str, NDArray[np.generic]]:
    """Draw the phrases of both splits; each is in one split and one language only."""
    generator = np.random.default_rng(1)
    texts: dict[str, list[NDArray[np.int32]]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    seen: set[str] = set()
    for label, language in enumerate(LANGUAGES):
        for split, count in (("train", TRAIN), ("test", TEST)):
            drawn = _phrases(language, split, 2 * count, generator)
            own = list(dict.fromkeys(phrase for phrase in drawn if phrase not in seen))[:count]
            seen.update(own)
            texts[split] += [encode_text(phrase, LENGTH) for phrase in own]
            labels[split] += [label] * len(own)
    arrays: dict[str, NDArray[np.generic]] = {}
    for split in texts:
        order = generator.permutation(len(labels[split]))
        arrays[f"{split}_text"] = np.stack(texts[split])[order]
        arrays[f"{split}_label"] = np.array(labels[split], np.int64)[order]
    return arrays


def _phrases(language: str, split: str, count: int, generator: np.random.Generator) -> list[str]:
    """Draw phrases of one split's words, cut to the length of the input."""
    from wordfreq import get_frequency_dict

    frequencies = get_frequency_dict(language, wordlist="best")
    words = sorted((word for word in frequencies if word.isalpha()), key=lambda word: -frequencies[word])
    own = [word for word in words[:WORDS] if (_digest(word) % TEST_SHARE == 0) == (split == "test")]
    odds = np.array([frequencies[word] for word in own]) ** FLATTENING
    chosen = generator.choice(len(own), (count, MOST), p=odds / odds.sum())
    sizes = generator.integers(FEWEST, MOST + 1, count)
    phrases = (" ".join(own[place] for place in row[:size]) for row, size in zip(chosen, sizes, strict=True))
    return [phrase.encode()[:LENGTH].decode(errors="ignore") for phrase in phrases]


def _digest(word: str) -> int:
    return zlib.crc32(word.encode())
