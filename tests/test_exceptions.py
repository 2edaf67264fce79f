"""exceptions.py: asyncio's classes, by which either module's `except` catches the other's."""

import asyncio

import pytest

from helpers import import_veloop

NAMES = import_veloop().exceptions.__all__


def test_all_of_asyncios_exceptions_are_there():
    own = {
        name
        for name, each in vars(asyncio.exceptions).items()
        if isinstance(each, type) and issubclass(each, BaseException)
    }
    assert own == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_exception_is_asyncios(name):
    assert getattr(import_veloop(), name) is getattr(asyncio, name)


def test_timeout_error_is_the_builtin():
    assert import_veloop().TimeoutError is TimeoutError
