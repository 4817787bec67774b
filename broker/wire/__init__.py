"""The shared protocol: messages, framing, codecs, errors, limits and slots (stdlib, msgspec)."""
