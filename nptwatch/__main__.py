"""`python -m nptwatch`: the same as the command `nptwatch`."""

from __future__ import annotations

import sys

from nptwatch.cli.main import main

sys.exit(main())
