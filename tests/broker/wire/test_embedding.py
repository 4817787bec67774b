"""Mirror of broker/wire/embedding.py."""

import threading

import pytest

from pronghorn.broker.wire.embedding import StopImport, import_of_nodes, importing_nodes


def test_the_mark_holds_only_inside() -> None:
    assert not importing_nodes()
    with import_of_nodes():
        assert importing_nodes()
        with import_of_nodes():
            assert importing_nodes()
        assert importing_nodes()
    assert not importing_nodes()


def test_the_mark_goes_when_an_import_fails() -> None:
    with pytest.raises(ZeroDivisionError), import_of_nodes():
        raise ZeroDivisionError
    assert not importing_nodes()


def test_another_thread_may_start_a_pool_meanwhile() -> None:
    seen: list[bool] = []
    with import_of_nodes():
        thread = threading.Thread(target=lambda: seen.append(importing_nodes()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_no_except_exception_catches_the_end_of_an_import() -> None:
    assert not issubclass(StopImport, Exception)
