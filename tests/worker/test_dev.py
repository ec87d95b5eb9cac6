"""`quintet._dev`: queries of a request, and compiled files that tell the truth."""

from __future__ import annotations

import importlib
import os
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from quintet import _dev


def test_queries_are_counted_by_their_shape() -> None:
    queries = _dev.Queries()
    assert queries.field() == "0;0;0"
    for _ in range(3):
        queries.add("select 1 from a where id = %s", 0.001)
    queries.add("select 2", 0.0005)
    assert queries.field() == "4;3500;3"
    # A list of another length, far behind, makes no other query of it.
    long = "select * from a where id in (" + "%s, " * 200
    queries.add(long + "%s)", 0)
    queries.add(long + "%s, %s)", 0)
    assert queries.shapes.most_common()[1][1] == 2


def test_an_app_without_django_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quintet._django.is_used", lambda: False)

    def app() -> None:
        """Nothing."""

    assert _dev.attend(app, "wsgi") is app


def test_a_source_that_was_just_saved_is_not_compiled_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SourceFileLoader, "set_data", SourceFileLoader.set_data)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(str(tmp_path))
    _dev.keep_bytecode_honest()
    for name, age, kept in (("saved_just_now", 0, False), ("saved_long_ago", 60, True)):
        source = tmp_path / f"{name}.py"
        source.write_text("VALUE = 1\n")
        os.utime(source, times=(time.time() - age,) * 2)
        importlib.invalidate_caches()
        assert importlib.import_module(name).VALUE == 1
        assert bool(list(tmp_path.glob(f"__pycache__/{name}.*"))) is kept


def test_packages_elsewhere_are_found_and_installed_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, beside = tmp_path / "project", tmp_path / "beside"
    for package in (project / "own", beside / "helpers", beside / "helpers" / "inner"):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
    (beside / "alone.py").write_text("")
    monkeypatch.syspath_prepend(str(beside))
    monkeypatch.syspath_prepend(str(project))
    for name in ("own", "helpers", "helpers.inner", "alone"):
        importlib.import_module(name)
    found = _dev.foreign_code(str(project))
    assert str(beside / "helpers") in found
    mine = [at for at in found if at.startswith(str(tmp_path))]
    assert mine == [str(beside / "helpers")], "each directory once, no module alone, nothing of the project"
