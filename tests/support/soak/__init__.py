"""Long tests that look for the rare: ``scripts/soak sim``, ``faults`` and ``overload``."""
