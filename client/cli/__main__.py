"""``python -m pronghorn.client.cli``, where the command ``pronghorn`` is not on the path."""

import sys

from . import main

sys.exit(main())
