"""The hand-written places that a target must be in: `python -m tests.places newtime` lists those that lack it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import yaml

from serving import targets
from serving.settings import Settings

ROOT = Path(__file__).parents[1]


def lacking(name: str) -> list[str]:
    """Return the places to write for a target: file, and its content there. Empty if none is missing."""
    module = name.replace("-", "_")
    target = targets.load(name) if name in targets.NAMES else None
    image, exporter = (target.container.image, target.exporter) if target else (name, module)
    own = targets.MODULES.get(name, module)
    base = yaml.safe_load((ROOT / "k8s" / "base" / "kustomization.yaml").read_text())
    tagged = [entry["name"] for entry in base["images"]]
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    projects = tomllib.loads((ROOT / "serving" / "compare" / "projects.toml").read_text())
    ports = [f for f in vars(Settings()) if f.startswith(f"{module}_") and f.endswith("_port")]
    found = {
        f"pipelines/exporting/{exporter}.py: EXPORTER": _exists(f"pipelines/exporting/{exporter}.py"),
        f"serving/targets/{own}.py: TARGET": _exists(f"serving/targets/{own}.py"),
        f"serving/targets/__init__.py: MODULES[{name!r}]": target is not None,
        f"serving/settings.py: {module}_rest_port and the like": bool(ports),
        f"docker/{image}/Dockerfile": _exists(f"docker/{image}/Dockerfile"),
        f"compose.yaml: the service {name}": name in services,
        f"k8s/base/{name}.yaml: a Deployment": _exists(f"k8s/base/{name}.yaml"),
        f"k8s/base/kustomization.yaml: resources and images, {name}.yaml and tandem.invalid/{image}": (
            f"{name}.yaml" in base["resources"] and f"tandem.invalid/{image}" in tagged
        ),
        f"serving/compare/projects.toml: [{name}]": name in projects,
        f"README.md: a row `| {name} |`": f"\n| {name} |" in (ROOT / "README.md").read_text(),
    }
    return [place for place, is_there in found.items() if not is_there]


def _exists(path: str) -> bool:
    return (ROOT / path).is_file()


if __name__ == "__main__":
    sys.stdout.write("".join(f"{place}\n" for place in lacking(sys.argv[1])))
