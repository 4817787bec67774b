"""The conformance kit: checks a broker, or a client, against PROTOCOL.md from outside.

Everything that is sent is made by hand or taken from the vectors beside PROTOCOL.md, and everything
that comes is read with msgpack and JSON alone: nothing of our own clients takes part, so that what
they and the broker have wrong in common is found too.
"""
