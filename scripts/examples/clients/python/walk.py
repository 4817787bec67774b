"""Takes the walk that README.md describes: python walk.py ENDPOINT.

PRONGHORN_KEY may name a key file.
"""

import os
import sys
from typing import Any

from json_req import JsonClient, PronghornError, read_key


def failed(client: JsonClient, node: str, *args: Any, **options: Any) -> PronghornError:
    try:
        client.call(node, *args, **options)
    except PronghornError as error:
        return error
    raise AssertionError(f"{node} did not fail")


def main(endpoint: str) -> None:
    key = os.environ.get("PRONGHORN_KEY")
    with JsonClient(endpoint, read_key(key) if key else None) as client:
        print("call", client.call("add", a=1, b=2))
        parts = client.call("count", n=200)
        print(f"stream {len(parts)} parts, sum {sum(parts)}")
        print("cancel", failed(client, "wait", patience_s=0.05).code)
        print("deadline", failed(client, "wait", timeout_s=0.05).code)
        error = failed(client, "divide", 1, 0)
        print("error", error.code, error.details["exception"])
        print("open", flush=True)
        while (error := failed(client, "wait", timeout_s=0.5)).code == "DEADLINE_EXCEEDED":
            pass
        print("lost", error.code)
        print("again", client.call("add", a=1, b=2))


if __name__ == "__main__":
    main(sys.argv[1])
