"""Training steps in PyTorch, by torch.profiler."""

from __future__ import annotations

import os
from itertools import chain, count, islice
from pathlib import Path

# Read as torch is imported: its profiler tells on stderr that it starts and stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch.profiler import ProfilerActivity, record_function

from pipelines.cli.profiling.record import PARTS, WARM, Clock, Op, Profiled
from pipelines.training.batches import BatchPlan
from pipelines.training.lightning_fit import EpochBatches, Trainee


def profile(plan: BatchPlan, steps: int, folder: Path) -> Profiled:
    """Time, then trace, the steps that `fit` takes, without what Lightning does between them."""
    torch.use_deterministic_algorithms(True)
    network = plan.model.build_torch()
    plan.model.to_torch(plan.model.initial_weights(plan.seed), network)
    trainee = Trainee(network, plan)
    configured = trainee.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    loss_of = plan.model.spec.task.torch_loss
    # Made in line, as for `fit`.
    batches = chain.from_iterable(EpochBatches(plan, epoch, 0, 1) for epoch in count())

    def run(steps: int, clock: Clock) -> Clock:
        for inputs, targets in islice(clock.waited(batches), steps):
            with clock("forward"):
                loss = loss_of(trainee.network(**inputs), targets)
            with clock("backward"):
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            with clock("optimizer"):
                optimizer.step()
                schedule.step()
        return clock

    run(WARM, Clock())
    timed = run(steps, Clock())
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        run(steps, Clock(record_function))
    # TensorBoard's plugin looks for this ending.
    profiler.export_chrome_trace(str(folder / "steps.pt.trace.json"))
    ops = [
        Op(own.key, own.self_cpu_time_total / 1e6 / steps, own.count / steps)
        for own in profiler.key_averages()
        if own.key not in PARTS
    ]
    ops.sort(key=lambda op: -op.seconds)
    runs_on = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    return Profiled("pytorch", runs_on, timed.each(steps), ops)
