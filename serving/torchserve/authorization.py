"""Tokens for management, none for inference: the one thing that TorchServe's switch cannot say.

With token authorization on, TorchServe 0.12.0 (its last release) asks for a token on every call, `/ping`
included; with it off, any local process may register and unregister models, over HTTP and over gRPC.
The decision is one comparison in each of two classes. We put copies of the two in front of the jar on the
class path, with that comparison changed, made at launch from the installed jar:

    TokenAuthorizationHandler   if type == MANAGEMENT: check; else if type == INFERENCE: check
                                                              else if type == MANAGEMENT (never)
    GRPCInterceptor             the inference service's type is null instead of INFERENCE, and
                                if isEnabled(): check   becomes   if type != null: check

Management stays TorchServe's own code. A jar with other classes than these is refused, so that a changed
TorchServe can neither open management nor lock inference unseen.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path


class AuthorizationError(Exception):
    """The installed TorchServe is not the one whose classes we know."""


@dataclass(frozen=True)
class Change:
    """A class in the jar, its digest, and what is replaced in its code: instructions of equal length."""

    name: str
    sha256: str
    replacements: tuple[tuple[bytes, bytes], ...]


CHANGES = (
    Change(
        "org/pytorch/serve/http/TokenAuthorizationHandler.class",
        "5276c75ded883dd2ba0930ccc0e1353987c59b60af402f0b0c41fedfdd20dae9",
        # aload_0; getfield tokenType; getstatic INFERENCE -> MANAGEMENT; if_acmpne
        ((bytes.fromhex("2a b40007 b2005c a6"), bytes.fromhex("2a b40007 b20019 a6")),),
    ),
    Change(
        "org/pytorch/serve/grpcimpl/GRPCInterceptor.class",
        "43ccf60fdede17fb9194c59ccf2304d47d94a60884a0880a91595e6e33b53292",
        (
            # aload_0; getstatic INFERENCE -> aconst_null, nop, nop; putfield tokenType; goto
            (bytes.fromhex("2a b20022 b5001f a7"), bytes.fromhex("2a 010000 b5001f a7")),
            # invokestatic isEnabled; invokevirtual booleanValue; ifeq
            # -> aload_0; getfield tokenType; nop, nop; ifnull
            (bytes.fromhex("b8004b b60051 99"), bytes.fromhex("2a b4001f 0000 c6")),
        ),
    ),
)


def write_classes(jar: Path, directory: Path) -> None:
    """Write the changed classes below `directory`, to be put before `jar` on the class path.

    Raises `AuthorizationError` where the jar does not hold the classes that we know.
    """
    with zipfile.ZipFile(jar) as archive:
        for change in CHANGES:
            code = archive.read(change.name) if change.name in archive.namelist() else b""
            digest = hashlib.sha256(code).hexdigest()
            if digest != change.sha256:
                raise AuthorizationError(
                    f"{jar}: {change.name} has sha256 {digest[:12]}…, expected {change.sha256[:12]}… of "
                    "torchserve 0.12.0; install the pinned version (requirements/main.txt)"
                )
            for before, after in change.replacements:
                assert code.count(before) == 1
                code = code.replace(before, after)
            path = directory / change.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(code)
