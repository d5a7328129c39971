"""Which form of the PyTorch model does TorchServe serve best? `python tests/benchmarks/torchserve_forms.py`

Starts one TorchServe a form (one worker each), calls them in turns, and prints a table: median latency, and
CPU time of the server's whole process tree a request. Eager PyTorch, AOTInductor (skipped without g++) and
ONNX Runtime, each inside the same handler; also ONNX with batching.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from models.base import Model, Weights, load
from pipelines.exporting import onnx
from pipelines.exporting import torchserve as exporter
from serving.repository import MANIFEST, Manifest, file_digests, version_dir
from serving.settings import Settings
from serving.targets.base import Client
from serving.targets.torchserve import TARGET
from serving.torchserve import archive
from serving.torchserve.clients import json_body, npy_body

EAGER = """
import torch
from handler import Handler
from models.base import load
from pipelines.exporting.torch_graph import Servable

class EagerHandler(Handler):
    def load(self, folder):
        torch.set_num_threads(1)
        self.network = Servable(load("{model}").build_torch()).eval()
        self.network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))

    def infer(self, images):
        with torch.inference_mode():
            return [output.numpy() for output in self.network(torch.from_numpy(images.copy()))]
"""

AOTI = """
import torch
from handler import Handler

class CompiledHandler(Handler):
    def load(self, folder):
        torch.set_num_threads(1)
        self.network = torch._inductor.aoti_load_package(str(folder / "model.pt2"))

    def infer(self, images):
        with torch.inference_mode():
            return [output.numpy() for output in self.network(torch.from_numpy(images.copy()))]
"""


def pack_eager(model: Model, weights: Weights, path: Path) -> None:
    import torch

    from pipelines.exporting.torch_graph import servable

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.save(servable(model, weights).state_dict(), file)
        source = EAGER.format(model=model.spec.name).encode()
        exporter.pack(model, path, {"weights.pt": file.read_bytes(), "eager.py": source}, handler="eager.py")


def pack_aoti(model: Model, weights: Weights, path: Path) -> None:
    import torch

    from pipelines.exporting.torch_graph import example, servable

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt2"
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        program = torch.export.export(servable(model, weights), (example(model),), dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(program, package_path=str(file))
        exporter.pack(
            model, path, {file.name: file.read_bytes(), "compiled.py": AOTI.encode()}, handler="compiled.py"
        )


def pack_onnx(model: Model, weights: Weights, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.export(model, weights, file)
        exporter.pack(model, path, {file.name: file.read_bytes()})


def pack_onnx_batching(model: Model, weights: Weights, path: Path) -> None:
    pack_onnx(model, weights, path)
    configuration = exporter.CONFIGURATION | {"batchSize": 8, "maxBatchDelay": 1}
    text = "".join(f"{key}: {value}\n" for key, value in configuration.items())
    archive.write_archive(path, archive.read_archive(path) | {"model-config.yaml": text.encode()})


FORMS: dict[str, Callable[[Model, Weights, Path], None]] = {
    "eager": pack_eager,
    "aotinductor": pack_aoti,
    "onnx": pack_onnx,
    "onnx-batch8-1ms": pack_onnx_batching,
}


class Server:
    """A TorchServe that serves one form on free ports."""

    def __init__(self, form: str, model: Model, weights: Weights, folder: Path) -> None:
        ports = free_ports(3)
        self.settings = dataclasses.replace(
            Settings(),
            model=model.spec.name,
            artifacts=folder / form,
            torchserve_rest_port=ports[0],
            torchserve_metrics_port=ports[1],
            torchserve_grpc_port=ports[2],
        )
        directory = version_dir(self.settings.repository, "torchserve", model.spec.name, 1)
        directory.mkdir(parents=True)
        FORMS[form](model, weights, directory / "model.mar")
        self.size = (directory / "model.mar").stat().st_size
        fields: dict[str, Any] = {field.name: "" for field in dataclasses.fields(Manifest)}
        fields |= {"files": file_digests(directory), "serve": "model.mar", "version": 1, "batched": True}
        (directory / MANIFEST).write_text(json.dumps(fields))
        launch = TARGET.launch(self.settings)
        started = time.monotonic()
        with (folder / f"{form}.log").open("wb") as log:
            self.process = subprocess.Popen(
                launch.command, env=os.environ | launch.environment, stdout=log, stderr=subprocess.STDOUT
            )
        while TARGET.served_version(self.settings) is None:
            if self.process.poll() is not None or time.monotonic() - started > 180:
                self.process.kill()
                sys.exit(f"{form} did not start; its log:\n{(folder / f'{form}.log').read_text()[-3000:]}")
            time.sleep(0.1)
        self.start_seconds = time.monotonic() - started
        self.clients: dict[str, Client] = TARGET.clients(self.settings)

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        return sum(process.cpu_times().user + process.cpu_times().system for process in self.tree())

    def memory(self) -> int:
        return sum(process.memory_info().rss for process in self.tree())

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def call(
    server: Server, body: bytes, kind: str, concurrency: int, requests: int
) -> tuple[list[float], float]:
    """Send `requests` calls from `concurrency` connections: latencies, the server's CPU seconds a call."""
    latencies: list[float] = []
    headers = {"Content-Type": kind}
    path = f"/predictions/{server.settings.model}"

    def connection(count: int) -> None:
        link = http.client.HTTPConnection("127.0.0.1", server.settings.torchserve_rest_port, timeout=60)
        for _ in range(count):
            begin = time.perf_counter()
            link.request("POST", path, body, headers)
            answer = link.getresponse()
            content = answer.read()
            latencies.append(time.perf_counter() - begin)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {content[:200]!r}")
        link.close()

    before = server.cpu_seconds()
    threads = [
        threading.Thread(target=connection, args=(requests // concurrency,)) for _ in range(concurrency)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, (server.cpu_seconds() - before) / len(latencies)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fashion", help="folder in models/ (untrained weights do)")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--rounds", type=int, default=5, help="how often each form takes its turn")
    parser.add_argument("--requests", type=int, default=320, help="calls a turn, body and concurrency")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()

    model = load(options.model)
    weights = model.initial_weights(1)
    if "aotinductor" in options.forms and not shutil.which("g++"):
        print("aotinductor: skipped, it needs g++")
        options.forms.remove("aotinductor")
    (tensor,) = model.spec.inputs
    images = {tensor.name: np.random.default_rng(0).random((1, *tensor.row), np.float32)}
    bodies = {
        ".npy": (npy_body(images), "application/octet-stream"),
        "JSON": (json_body(images), "application/json"),
    }
    latencies: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    cpu: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        servers: dict[str, Server] = {}
        try:
            for form in options.forms:
                servers[form] = Server(form, model, weights, Path(name))
            answers = {
                form: server.clients["rest"].predict(images)["logits"] for form, server in servers.items()
            }
            apart = max(float(abs(a - b).max()) for a in answers.values() for b in answers.values())
            for turn in range(options.rounds + 1):
                for form, server in servers.items():
                    for body, (content, kind) in bodies.items():
                        for concurrency in options.concurrency:
                            result = call(server, content, kind, concurrency, options.requests)
                            # The first turn warms Java up.
                            if turn:
                                latencies[form, body, concurrency] += result[0]
                                cpu[form, body, concurrency].append(result[1])
            memory = {form: server.memory() for form, server in servers.items()}
        finally:
            for server in servers.values():
                server.stop()
    print(
        f"logits at most {apart:.1e} apart; {options.rounds} turns of {options.requests} one-picture calls\n"
    )
    columns = [(body, concurrency) for body in bodies for concurrency in options.concurrency]
    heads = [f"{body}, {concurrency} at once: p50 ms / CPU us" for body, concurrency in columns]
    print("| form | start s | memory MB | .mar kB | " + " | ".join(heads) + " |")
    print("|" + "---|" * (4 + len(heads)))
    for form, server in servers.items():
        cells = [
            f"{statistics.median(latencies[form, *column]) * 1e3:.2f} / "
            f"{statistics.mean(cpu[form, *column]) * 1e6:.0f}"
            for column in columns
        ]
        figures = [f"{server.start_seconds:.0f}", f"{memory[form] / 2**20:.0f}", f"{server.size / 1000:.0f}"]
        print(f"| {form} | " + " | ".join(figures + cells) + " |")


if __name__ == "__main__":
    main()
