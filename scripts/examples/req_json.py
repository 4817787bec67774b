"""Without Pronghorn's client: a plain REQ socket and one line of JSON-RPC 2.0.

    pronghorn serve scripts/examples/tiny.py --bind tcp://127.0.0.1:5599 --insecure
    python scripts/examples/req_json.py tcp://127.0.0.1:5599

Any language with a ZeroMQ binding can do the same; there is no handshake.
"""

import json
import sys

import zmq

TIMEOUT_MS = (
    5_000  # nothing tells a REQ socket that its broker is gone: it needs a limit of its own
)


def main(endpoint: str) -> int:
    request = {"jsonrpc": "2.0", "id": 1, "method": "add", "params": {"a": 1, "b": 2}}
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = TIMEOUT_MS
        socket.connect(endpoint)
        socket.send_json(request)
        try:
            reply = socket.recv_json()
        except zmq.Again:
            print(f"no reply from {endpoint} within {TIMEOUT_MS} ms", file=sys.stderr)
            return 1
    print(json.dumps(reply))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} ENDPOINT")
    sys.exit(main(sys.argv[1]))
