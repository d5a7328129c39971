"""How long all pictures take to be validated, against their schema and against a published version.

.venv/bin/python tests/benchmarks/validation.py [artifacts]
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
    dataset = data.load(model, Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts"), seed=1)
    rules = schema.load(model)
    published = Published(1, validate(dataset, model.spec, rules, None).statistics)
    for _ in range(RUNS):
        wall, processor = time.perf_counter(), time.process_time()
        checks = validate(dataset, model.spec, rules, published).checks
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        rows = sum(map(len, dataset.splits.values()))
        print(f"{rows} pictures, {len(checks)} checks: {wall:.2f} s ({processor:.2f} s of processor)")


if __name__ == "__main__":
    main()
