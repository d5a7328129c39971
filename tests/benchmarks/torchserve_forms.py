"""Which form of the PyTorch model does TorchServe serve best? `python tests/benchmarks/torchserve_forms.py`

Starts one TorchServe a form (one worker each), calls them in turns, and prints a table: median latency, and
CPU time of the server's whole process tree a request; and what a run costs in a process that does nothing else.
The forms are those that Tandem ships (aot is skipped without g++), the eager module inside the same handler, and
the exported program with batching.
"""

from __future__ import annotations

import argparse
import contextlib
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from models.base import Model, Weights, load
from models.signature import Arrays
from pipelines.exporting import torchserve as exporter
from serving.repository import MANIFEST, Manifest, file_digests, version_dir
from serving.settings import Settings
from serving.targets.base import Client
from serving.targets.torchserve import TARGET
from serving.torchserve import archive
from serving.torchserve.clients import json_body, npy_body
from serving.torchserve.trial import trial

EAGER = """
import torch
from handler import Handler
from models.base import load
from pipelines.exporting.torch_graph import Servable

class EagerHandler(Handler):
    def load(self, folder, form):
        torch.set_num_threads(1)
        self.network = Servable(load("{model}").build_torch()).eval()
        self.network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
"""


def pack_eager(model: Model, weights: Weights, path: Path) -> None:
    import torch

    from pipelines.exporting.torch_graph import servable

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.save(servable(model, weights).state_dict(), file)
        source = EAGER.format(model=model.spec.name).encode()
        files = {"weights.pt": file.read_bytes(), "eager.py": source}
        exporter.pack(model, path, files, handler="eager.py")


def pack_form(form: str, model: Model, weights: Weights, path: Path) -> None:
    exporter.FORMS[form].write(model, weights, path.parent, {})


def pack_batching(model: Model, weights: Weights, path: Path) -> None:
    pack_form("exported", model, weights, path)
    configuration = exporter.CONFIGURATION | {"batchSize": 8, "maxBatchDelay": 1}
    text = "".join(f"{key}: {value}\n" for key, value in configuration.items())
    archive.write_archive(path, archive.read_archive(path) | {"model-config.yaml": text.encode()})


FORMS: dict[str, Callable[[Model, Weights, Path], None]] = {
    "eager": pack_eager,
    **{form: partial(pack_form, form) for form in exporter.FORMS},
    "exported-batch8-1ms": pack_batching,
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
        self.archive = directory / "model.mar"
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


def alone(archives: dict[str, Path], images: Arrays, rounds: int, calls: int = 100) -> dict[str, float]:
    """CPU seconds of one run in a process that does nothing else, by form; the forms take turns."""
    seconds: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        handlers = {form: stack.enter_context(trial(path)).handler for form, path in archives.items()}
        for turn in range(rounds + 1):
            for form, handler in handlers.items():
                start = time.process_time()
                for _ in range(calls):
                    handler.infer(images)
                if turn:
                    seconds[form].append((time.process_time() - start) / calls)
    return {form: statistics.median(own) for form, own in seconds.items()}


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
    if "aot" in options.forms and not shutil.which("g++"):
        print("aot: skipped, it needs g++")
        options.forms.remove("aot")
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
            sizes = {form: server.archive.stat().st_size for form, server in servers.items()}
        finally:
            for server in servers.values():
                server.stop()
        process = alone({form: server.archive for form, server in servers.items()}, images, options.rounds)
    print(
        f"logits at most {apart:.1e} apart; {options.rounds} turns of {options.requests} one-picture calls\n"
    )
    columns = [(body, concurrency) for body in bodies for concurrency in options.concurrency]
    heads = [f"{body}, {concurrency} at once: p50 ms / CPU us" for body, concurrency in columns]
    print("| form | in process: CPU us | start s | memory MB | .mar kB | " + " | ".join(heads) + " |")
    print("|" + "---|" * (5 + len(heads)))
    for form, server in servers.items():
        cells = [
            f"{statistics.median(latencies[form, *column]) * 1e3:.2f} / "
            f"{statistics.mean(cpu[form, *column]) * 1e6:.0f}"
            for column in columns
        ]
        figures = [
            f"{process[form] * 1e6:.0f}",
            f"{server.start_seconds:.0f}",
            f"{memory[form] / 2**20:.0f}",
            f"{sizes[form] / 1000:.0f}",
        ]
        print(f"| {form} | " + " | ".join(figures + cells) + " |")


if __name__ == "__main__":
    main()
