"""The command `tandem`: the only package that imports all others, each when it is needed."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipelines.cli import parsing, verbs
from pipelines.cli.verbs import complain
from serving.errors import TandemError
from serving.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pipelines.cli.subjects import Rows

# Read by TensorFlow when it is first imported: its notices would drown our own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The same of PyTorch's: a node that is lost is an error of ours, and not a stack of C++.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
# Read when torch is: its threads would otherwise spin while they wait, and a step beside anything else, such as the
# build of an image, took three times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

INTERRUPTED = 130


def main(arguments: list[str] | None = None, more: Sequence[Callable[[Rows], None]] = ()) -> int:
    """Run one verb; returns the exit status: 0, 1 where it failed, 2 where it was called wrongly, 130 on Ctrl-C.

    `more` adds rows to a comparison.
    """
    top = parsing.parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(top)
    options = top.parse_args(arguments)
    options.more = more
    # SIGTERM ends a stage as Ctrl-C does, which removes unfinished files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The servers in containers have another user, who must read the repository and the configuration.
    os.umask(0o022)
    try:
        settings = Settings.from_environment()
        overrides = {
            field.name: getattr(options, field.name)
            for field in dataclasses.fields(Settings)
            if getattr(options, field.name, None) is not None
        }
        # The first of several machines has the weights; the others help to train.
        verb = verbs.train if settings.node_rank and options.verb in verbs.MAKING else options.verb
        return int(verb(dataclasses.replace(settings, **overrides), options) or 0)
    except SettingsError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        trains = hasattr(options, "precision")
        told = (
            "nothing half-made is served, and a training goes on from its last epoch when this is run again"
        )
        complain(f"interrupted; {told if trains else '`tandem status` shows what is served'}")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        complain(
            f"{error.name} is not installed; `make setup` in a clone of Tandem installs all that `tandem` needs"
        )
        return 1
    except (TandemError, OSError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        complain(f"{error}; free some space and run this again" if full else str(error))
        return 1
