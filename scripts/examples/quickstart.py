"""The synchronous client in one page: python scripts/examples/quickstart.py

`Pool` starts a process tree of its own, here with two workers, and ends it with the block.
"""

from concurrent.futures import as_completed
from pathlib import Path

from tiny import add, concat

from pronghorn.client import NodeError, Pool

TINY = str(Path(__file__).with_name("tiny.py"))


def main() -> None:
    with Pool(TINY, workers=2) as pool, pool.client() as client:
        print("call by name:", client.call("add", a=1, b=2))

        # By function object a type checker knows the parameters and the result.
        print("call by function:", client.call(concat, "prong", "horn", separator=""))

        futures = [client.submit(add, number, number) for number in range(5)]
        print("submit:", sorted(future.result() for future in as_completed(futures)))

        pairs = [{"a": number, "b": 1} for number in range(10_000)]
        print("map:", sum(client.map("add", pairs)))

        with client.executor() as executor:
            print("executor:", list(executor.map(add, range(5), range(5))))

        try:
            client.call("divide", dividend=1.0, divisor=0.0, timeout_s=5.0)
        except NodeError as error:
            print("an error of the node:", error.exception, "-", error.message)


if __name__ == "__main__":
    main()
