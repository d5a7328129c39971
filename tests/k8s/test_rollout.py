"""k8s/rollout and k8s/kind against a scripted kubectl: which commands are issued, and what is left of a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.k8s.manifests import K8S

KUBECTL = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$STATE/calls"
tag=$(cat "$STATE/tag")
case "$*" in
  apply*) sed -n 's/.*newTag: \\([^}]*\\)}.*/\\1/p' "$3/kustomization.yaml" >"$STATE/tag" ;;
  *"get deployments"*initContainers*) for _ in 1 2 3 4 5; do echo "tandem.invalid/models:$tag"; done ;;
  *"get deployments"*tandem-previous*) cat "$STATE/previous" 2>/dev/null ;;
  *"get deployments"*name) echo deployment.apps/litert; echo deployment.apps/tfjs ;;
  *"get replicasets"*) echo READY; echo "litert $tag 1"; echo "litert old <none>" ;;
  *"rollout status deployment.apps/tfjs"*) [ "$tag" != "${BROKEN:-none}" ] ;;
  *annotate*) for last; do :; done; echo "${last#tandem-previous=}" >"$STATE/previous" ;;
esac
"""


class Cluster:
    """A checkout's k8s/ whose five Deployments serve fashion-1, and a kubectl that notes what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(K8S, root / "k8s")
        (root / "bin").mkdir()
        (root / "bin" / "kubectl").write_text(KUBECTL)
        (root / "bin" / "kubectl").chmod(0o755)
        (root / "tag").write_text("fashion-1\n")
        self.overlay = "k8s/overlays/local"

    def rollout(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        own = os.environ | {"PATH": path, "STATE": str(self.root), "OVERLAY": self.overlay} | environment
        return subprocess.run(
            [self.root / "k8s" / "rollout", *arguments], env=own, capture_output=True, text=True
        )

    @property
    def calls(self) -> list[str]:
        """The commands that change or wait, without their options."""
        words = [line.removeprefix("--namespace tandem ") for line in self.read("calls").splitlines()]
        return [line.split(" --")[0] for line in words if not line.startswith("get")]

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def tags(self) -> set[str]:
        """What the overlay and the cluster say."""
        line = next(
            line for line in self.read(f"{self.overlay}/kustomization.yaml").splitlines() if "newTag" in line
        )
        return {line.split("newTag: ")[1].rstrip("}"), self.read("tag").strip()}


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


WAITS = ["rollout status deployment.apps/litert", "rollout status deployment.apps/tfjs"]


@pytest.mark.parametrize("overlay", ["k8s/overlays/local", "k8s/overlays/production"])
def test_all_targets_move_together_there_and_back(cluster: Cluster, overlay: str) -> None:
    cluster.overlay = overlay
    done = cluster.rollout("2")
    assert done.returncode == 0, done.stderr
    assert cluster.calls == ["apply", *WAITS, "annotate deployments"]
    assert f"apply --kustomize {overlay}\n" in cluster.read("calls")
    assert cluster.tags() == {"fashion-2"}
    assert cluster.rollout("back").returncode == 0
    assert cluster.tags() == {"fashion-1"}
    assert cluster.rollout("back").returncode == 0
    assert cluster.tags() == {"fashion-2"}, "the version that was served before"


def test_where_one_target_is_not_ready_all_go_back(cluster: Cluster) -> None:
    done = cluster.rollout("2", BROKEN="fashion-2")
    assert done.returncode == 1
    assert "fashion-2 did not become ready everywhere; going back to fashion-1" in done.stderr
    assert cluster.calls == ["apply", *WAITS, "apply", *WAITS]
    assert cluster.tags() == {"fashion-1"}
    assert not list(cluster.root.rglob("*.old"))
    done = cluster.rollout("back")
    assert (done.returncode, "no single version" in done.stderr) == (1, True)


def test_the_status_names_what_has_ready_pods(cluster: Cluster) -> None:
    assert cluster.rollout("status").stdout.splitlines()[1:] == ["litert fashion-1 1"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["two"], {}, "expected a version as a whole number, `back` or `status`, got 'two'"),
        ([""], {}, "got ''"),
        (["2"], {"OVERLAY": "k8s/overlays/nowhere"}, "there is no overlay k8s/overlays/nowhere"),
        (["2"], {"OVERLAY": "k8s"}, "k8s/kustomization.yaml has no line"),
    ],
)
def test_a_wrong_call_changes_nothing(
    cluster: Cluster, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = cluster.rollout(*arguments, **environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert cluster.tags() == {"fashion-1"}
    assert not (cluster.root / "calls").exists()
