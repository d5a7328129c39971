"""`python -m pipelines.cli` is `tandem`."""

import sys

from pipelines.cli import main

sys.exit(main())
