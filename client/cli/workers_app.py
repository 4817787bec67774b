"""The commands of ``pronghorn workers``, their arguments and options.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_workers_app.py.
"""

from typing import Annotated

import typer

from .options import AsJson, Endpoint, Name

workers_app = typer.Typer(
    help="Look at workers; replace, drain and scale them.", no_args_is_help=True
)


@workers_app.command("list")
def workers_list(endpoint: Endpoint = None, name: Name = None, as_json: AsJson = False) -> None:
    """List the workers: state, process, requests, age, memory.

    Restarts are workers that have ended unasked in the same place before.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import list_workers
        from .connecting import endpoint_of

        list_workers(endpoint_of(endpoint, name), as_json=as_json)


@workers_app.command("recycle")
def workers_recycle(
    worker_ids: Annotated[
        list[int] | None, typer.Argument(metavar="WORKER", help="Which. [default: all]")
    ] = None,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Replace workers, one after the other, each by one that is ready before."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import recycle
        from .connecting import endpoint_of

        recycle(endpoint_of(endpoint, name), worker_ids or (), as_json=as_json)


@workers_app.command("scale", context_settings={"ignore_unknown_options": True})
def workers_scale(
    workers: Annotated[int, typer.Argument(metavar="N", help="1 to 1000.")],
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Have so many workers, and wait until they are ready."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import scale
        from .connecting import endpoint_of

        scale(endpoint_of(endpoint, name), workers, as_json=as_json)


@workers_app.command("drain")
def workers_drain(
    worker: Annotated[int, typer.Argument(metavar="WORKER", help="Its number.")],
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Take a worker out of service at once, and wait until it has ended what it had begun."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import drain
        from .connecting import endpoint_of

        drain(endpoint_of(endpoint, name), worker, as_json=as_json)
