"""The version of this installation, as both sides name it to each other.

A constant, because reading it from the package's metadata takes as long as a tenth of a start.

Mirror: tests/broker/wire/test_version.py.
"""

VERSION = "0.1.0"
SERVER_NAME = f"pronghorn/{VERSION}"
CLIENT_NAME = f"pronghorn-python/{VERSION}"
CONDUCTOR_NAME = f"pronghorn-conductor/{VERSION}"
"""What conducts workflows names itself so: while a pool drains its calls are part of open ones."""
