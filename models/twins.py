"""The check, before training, that a model's networks fit its spec and, where there are two, each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from models import bridge
from models.base import FRAMEWORKS, NETWORKS, Model, ModelError, Weights
from models.data import Rows
from models.signature import Arrays, batch_size

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray
    from torch import nn

ROWS = 4
DIFFERENCE = 1e-3
"""Largest difference of the answers of equal weights, relative to the largest answer: rounding is smaller,
another padding, epsilon or activation is not."""


def check(model: Model, sample: Rows) -> None:
    """Prove that spec and networks fit each other, and that equal weights in two networks give equal answers.
    `sample` are rows of the spec's inputs. Raises `ModelError` with what was expected and what came."""
    spec, first = model.spec, model.spec.task.outputs[0]
    inputs = sample.take(slice(ROWS)).served(spec.signature)
    count = batch_size(inputs)
    networks: dict[str, Any] = {}
    if "tensorflow" in model.frameworks:
        networks["tensorflow"] = model.build_keras()
        _check_keras_inputs(model, networks["tensorflow"])
    if "pytorch" in model.frameworks:
        networks["pytorch"] = model.build_torch()
    if len(networks) > 1:
        _equalize(model, *networks.values())
    answers = []
    for framework, network in networks.items():
        where = f"models/{spec.name}/{NETWORKS[framework]}.py"
        try:
            answer = (run_keras if framework == "tensorflow" else run_torch)(network, inputs)
        except Exception as error:
            raise ModelError(
                f"{where} fails on the inputs of spec.py: {type(error).__name__}: {error}"
            ) from error
        if answer.shape[:1] != (count,) or not first.admits(answer.shape[1:]) or answer.dtype != first.dtype:
            raise ModelError(
                f"{where}: expected {first.name} {first.dtype} {[count, *first.row]} for {count} rows, as the "
                f"{spec.task.kind} of spec.py has it; it gives {answer.dtype} {list(answer.shape)}"
            )
        answers.append(answer)
    if len(answers) == 1:
        return
    left, right = answers
    if not _alike(left, right):
        apart = float(np.abs(left - right).max())
        raise ModelError(
            f"the networks of {spec.name} have the same weights and answer differently, by up to {apart:.2g}"
            f"{_first_apart(model, networks, inputs)}: compare keras_model.py and torch_model.py "
            "for padding, activations (is GELU exact or approximate?), masks, the order of axes"
        )


def _alike(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return bool(np.abs(left - right).max() <= DIFFERENCE * max(1.0, float(np.abs(left).max())))


def _equalize(model: Model, network: keras.Model, twin: nn.Module) -> None:
    """Pair the layers of the two networks, and give them the same weights."""
    bridge.pair(network, twin, model.rules)
    weights = drawn(model.from_keras(network))
    model.to_keras(weights, network)
    model.to_torch(weights, twin)
    for name, array in model.from_torch(twin).items():
        if not np.allclose(array, weights[name]):
            raise ModelError(
                f"models/{model.spec.name}/torch_model.py: {name} does not keep what it is set to: another layer "
                "shares it, which Keras's twin has apart; have two in PyTorch"
            )


def _first_apart(model: Model, networks: Mapping[str, Any], inputs: Arrays) -> str:
    """Return the first layer, in Keras's order, whose answers differ; "" if that cannot be told."""
    import keras

    network, twin = (networks[framework] for framework in FRAMEWORKS)
    seen: dict[str, NDArray[Any]] = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401
        seen[name] = (output[0] if isinstance(output, tuple) else output).numpy()

    for layer in bridge.torch_layers(twin, model.rules):
        layer.layer.register_forward_hook(partial(keep, layer.name))
    run_torch(twin, inputs)
    try:
        layers = [layer for layer in bridge.keras_layers(network, model.rules) if layer.name in seen]
        outputs = keras.Model(network.inputs, [layer.layer.output for layer in layers])(list(inputs.values()))
    except (AttributeError, ValueError, RuntimeError):
        # A layer within a layer has no output of its own in the graph.
        return ""
    for layer, output in zip(layers, outputs, strict=True):
        left, right = output.numpy(), seen[layer.name]
        orders = [order for order in (right, np.moveaxis(right, 1, -1)) if order.shape == left.shape]
        if not any(_alike(left, order) for order in orders):
            return f"; {layer.name} ({type(layer.layer).__name__}) is the first layer whose answers differ"
    return "; the answers of all layers with weights are equal: it is what comes after them"


def drawn(weights: Weights) -> Weights:
    """Draw weights of these shapes without zeros and ones, so that a part that is left out changes the answers."""
    generator = np.random.default_rng(2)
    result = bridge.initial(weights, seed=1)
    for name, array in result.items():
        if name.endswith("/variance"):
            result[name] = generator.uniform(0.5, 2, array.shape).astype(np.float32)
        elif not name.endswith(("kernel", "recurrent")):
            result[name] = (array + generator.normal(0, 0.3, array.shape)).astype(np.float32)
    return result


def run_keras(network: keras.Model, inputs: Arrays) -> NDArray[Any]:
    """Return the network's own output in inference mode."""
    values = [inputs[tensor.name] for tensor in network.inputs]
    return np.asarray(network(values if len(values) > 1 else values[0], training=False))


def run_torch(network: nn.Module, inputs: Arrays) -> NDArray[Any]:
    """Return the network's own output; its `forward` takes the inputs by name."""
    import torch

    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
    with torch.inference_mode():
        return np.asarray(network.eval()(**tensors))


def _check_keras_inputs(model: Model, network: keras.Model) -> None:
    expected = ", ".join(f"{t.name} {t.dtype} {list(t.row)}" for t in model.spec.inputs)
    found = ", ".join(
        f"{t.name} {t.dtype} {[-1 if n is None else n for n in t.shape[1:]]}" for t in network.inputs
    )
    if found != expected:
        raise ModelError(
            f"models/{model.spec.name}/keras_model.py: expected the inputs, in this order, {expected}; "
            f"it has {found or 'none'}"
        )
