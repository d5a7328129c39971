"""uv: its settings, which are pip's, and where it comes from. For any Python from 3.8 on."""

from __future__ import annotations

import configparser
import hashlib
import os
import platform
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path

from requirements.running import NoPythonError, SetupError, advice, run

HERE = Path(__file__).resolve().parent
GENERAL_INDEX = "https://pypi.org/simple"


def settings() -> dict[str, str]:
    """pip's settings, which uv does not read: environment variables first, then its files."""
    parser = configparser.ConfigParser(interpolation=None)
    home = Path(os.environ.get("HOME", "/nonexistent"))
    xdg = Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"))
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        xdg / "pip/pip.conf",
    ]
    with suppress(OSError, configparser.Error):
        parser.read([*files, os.environ.get("PIP_CONFIG_FILE", os.devnull)])
    found = {}
    for uv, pip in (("UV_FIND_LINKS", "find-links"), ("UV_DEFAULT_INDEX", "index-url")):
        value = os.environ.get(uv) or os.environ.get("PIP_" + pip.upper().replace("-", "_")) or ""
        if (value := value or parser.get("global", pip, fallback="")).strip():
            # pip separates by white space, uv by commas.
            found[uv] = ",".join(value.split())
    return found


def has_torch(version: str) -> bool:
    """Return True if a wheel folder of this machine has a torch for a Python."""
    folders = settings().get("UV_FIND_LINKS", "").split(",")
    return any(list(Path(f).glob(f"torch-*cp{version.replace('.', '')}*")) for f in folders if f)


def pinned_uv() -> tuple[str, list[str]]:
    """uv's pin and its digests."""
    pin = (HERE.parent / "docker" / "builder" / "uv.txt").read_text().strip()
    text = (HERE / "hashes.txt").read_text().partition(f"{pin} \\\n")[2]
    digests = re.match(r"(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text)
    return pin, re.findall(r"[0-9a-f]{64}", digests[0]) if digests else []


def bring_uv(venv: Path) -> None:
    """Install uv into an environment that has pip."""
    pin, digests = pinned_uv()
    if certificates := os.environ.get("SSL_CERT_FILE"):
        os.environ.setdefault("PIP_CERT", certificates)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(" ".join([pin, *(f"--hash=sha256:{digest}" for digest in digests)]))
        file.flush()
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        run(
            [str(venv / "bin" / "python"), "-m", "pip", "install", *options, "--requirement", file.name],
            "pip install uv",
        )


def fetch_uv(folder: Path) -> Path:
    """Fetch uv's wheel from the package index, where no pip is at hand. Raises `SetupError`."""
    pin, digests = pinned_uv()
    machine = platform.machine()
    system = "macosx" if platform.system() == "Darwin" else "manylinux"
    index = settings().get("UV_DEFAULT_INDEX", GENERAL_INDEX).rstrip("/") + "/uv/"
    try:
        with urllib.request.urlopen(index, timeout=60) as answer:  # noqa: S310 - the user's own setting
            page = answer.read().decode()
        links = re.findall(r'href="([^"]+)"', page)
        name = f"{pin.replace('==', '-')}-py3-none-{system}"
        link = next(x for x in links if f"/{name}" in x and f"{machine}.whl" in x)
        with urllib.request.urlopen(urllib.parse.urljoin(index, link), timeout=60) as answer:  # noqa: S310
            content = answer.read()
    except (OSError, StopIteration) as error:
        raise NoPythonError(
            f"uv could not be fetched from {index}: {error or f'it has no {pin} for {machine}'}{advice(str(error))}"
        ) from None
    if hashlib.sha256(content).hexdigest() not in digests:
        raise SetupError(f"the wheel of {pin} from {index} is not one of those in requirements/hashes.txt")
    wheel = folder / "uv.whl"
    wheel.write_bytes(content)
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        (folder / "uv").write_bytes(archive.read(member))
    (folder / "uv").chmod(0o755)
    return folder / "uv"
