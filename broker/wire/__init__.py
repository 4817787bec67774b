"""The shared protocol: messages, frames, codecs, errors, limits and the slots page (stdlib and msgspec only)."""
