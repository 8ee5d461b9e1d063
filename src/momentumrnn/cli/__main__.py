"""``python -m momentumrnn.cli`` is ``momentumrnn``."""

import sys

from momentumrnn.cli.main import main

sys.exit(main())
