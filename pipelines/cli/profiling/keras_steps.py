"""Training steps in TensorFlow, by tf.profiler."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import psutil
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from pipelines.cli.profiling.record import WARM, Clock, Profiled, dearest, write_trace
from pipelines.training import keras_fit
from pipelines.training.batches import BatchPlan

NOTE = (
    "XLA compiles a step into one program, whose parts cannot be told apart: forward, and forward with backward, ran "
    "as programs of their own in turn with it; backward and optimizer are the differences."
)


def profile(plan: BatchPlan, steps: int, folder: Path) -> Profiled:
    """Time, then trace, the steps that `fit` takes, without what Keras does between them."""
    keras.utils.set_random_seed(plan.seed)
    network = keras_fit.compile_network(plan.model, plan)
    batches = iter(keras_fit.batches(plan, 0).repeat())

    def run(steps: int, clock: Clock) -> Clock:
        for batch in islice(clock.waited(batches), steps):
            with clock("step"):
                network.train_on_batch(*batch)
        return clock

    def forward(inputs: Any, targets: Any) -> Any:  # noqa: ANN401
        return network.compute_loss(x=inputs, y=targets, y_pred=network(inputs, training=True))

    def gradients(inputs: Any, targets: Any) -> Any:  # noqa: ANN401
        with tf.GradientTape() as tape:
            loss = forward(inputs, targets)
        found = tape.gradient(loss, [variable.value for variable in network.trainable_variables])
        return [tf.convert_to_tensor(gradient) for gradient in found]

    run(WARM, Clock())
    timed = run(steps, Clock()).each(steps)
    tf.profiler.experimental.start(str(folder))
    run(steps, Clock(tf.profiler.experimental.Trace))
    tf.profiler.experimental.stop()
    batch = next(batches)
    programs = {
        "forward": tf.function(forward, jit_compile=True),
        "gradients": tf.function(gradients, jit_compile=True),
        "step": network.train_on_batch,
    }
    # In turns, so that what else the machine does slows all of them.
    rounds = [_seconds(programs, batch) for _ in range(WARM + steps)][WARM:]
    ahead, both, step = (statistics.median(own[name] for own in rounds) for name in programs)
    both = min(both, step)
    ahead = min(ahead, both)
    whole = timed["step"] / step
    parts = {
        "input": timed["input"],
        "forward": ahead * whole,
        "backward": (both - ahead) * whole,
        "optimizer": (step - both) * whole,
    }
    events = list(_events(folder))
    write_trace(folder / "trace.json", (event for event, _ in events))
    ops = ((name, duration / 1e6) for (_, name, _, duration), is_op in events if is_op)
    return Profiled(
        "tensorflow",
        f"tensorflow {tf.__version__}, {psutil.cpu_count()} threads",
        parts,
        dearest(ops, steps),
        NOTE,
    )


def _seconds(programs: Mapping[str, Callable[..., object]], batch: tuple[Any, Any]) -> dict[str, float]:
    clock = Clock()
    for name, program in programs.items():
        with clock(name):
            program(*batch)
    return clock.seconds


def _events(folder: Path) -> Iterator[tuple[tuple[str, str, float, float], bool]]:
    """Yield the arguments of `write_trace` for each event, and True if it is an instruction of XLA's program."""
    space = xplane_pb2.XSpace.FromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                is_op = any(plane.stat_metadata[stat.metadata_id].name == "hlo_op" for stat in event.stats)
                start = line.timestamp_ns / 1e3 + event.offset_ps / 1e6
                yield (line.name, name, start, event.duration_ps / 1e6), is_op
