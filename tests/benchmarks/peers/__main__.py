"""`tandem compare` with the peers as rows, too."""

import sys

from pipelines.cli import main
from tests.benchmarks.peers import add

sys.exit(main(["compare", *sys.argv[1:]], [add]))
