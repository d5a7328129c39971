"""How long all pictures take to be validated, against their schema and against a published version.

.venv/bin/python tests/benchmarks/validation.py [folder with the IDX files]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import models.base
from pipelines import data
from pipelines.validation import Published, schema, validate

RUNS = 3


def main() -> None:
    model = models.base.load("fashion")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else f"artifacts/data/{model.spec.data.name}")
    dataset = data.load(model.spec.data, folder, seed=1)
    rules, classes = schema.load(model), model.spec.classes
    published = Published(1, validate(dataset, rules, classes, None).statistics)
    for _ in range(RUNS):
        wall, processor = time.perf_counter(), time.process_time()
        checks = validate(dataset, rules, classes, published).checks
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        pictures = sum(len(part) for part in (dataset.train, dataset.validation, dataset.test))
        print(f"{pictures} pictures, {len(checks)} checks: {wall:.2f} s ({processor:.2f} s of processor)")


if __name__ == "__main__":
    main()
