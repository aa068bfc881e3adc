"""Test that notebooks are found by name and other files are rejected. No kernel is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest

from nbval_tolerance import notebooks
from nbval_tolerance.cli import main
from nbval_tolerance.config import Config, find


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch) -> Path:
    """Return the path of a notebook in the current working directory."""
    monkeypatch.chdir(tmp_path)
    find.cache_clear()
    Path("pyproject.toml").write_text("[tool.nbval-tolerance]\n")
    path = tmp_path / "07_small.ipynb"
    cell = nbformat.v4.new_code_cell("x = 1", execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


CELL = '{"cell_type": "code", "metadata": {}, "source": "x", "outputs": %s, "execution_count": 1}'


def with_cells(*cells: str, metadata: str = "{}") -> str:
    """Return the JSON text of a notebook with the given cells."""
    listed = ", ".join(cells)
    head = '"nbformat": 4, "nbformat_minor": 2'
    return f'{{{head}, "metadata": {metadata}, "cells": [{listed}]}}'


SHOWN = '[{"output_type": "display_data", "metadata": {}, "data": {"text/plain": 5}}]'
PLAIN = CELL % "[]"
WRONG_FILES = {
    "": "the file is empty",
    " \n": "the file is empty",
    '{"cells": [': "the file is not JSON (Expecting value",
    '{\n<<<<<<< HEAD\n"cells"': "Git could not merge",
    "[]": "the file's JSON has no cells",
    "3": "the file's JSON has no cells",
    '{"metadata": {}}': "the file's JSON has no cells",
    '{"nbformat": 5, "nbformat_minor": 0, "metadata": {}, "cells": []}': "nbformat version 5",
    '{"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": {}}': "'cells' of the notebook",
    with_cells(metadata="[]"): "the 'metadata' of the notebook",
    with_cells(metadata='{"kernelspec": "python3"}'): "the notebook's 'kernelspec'",
    with_cells('"x"'): "the cell before Cell 0 has the wrong type",
    with_cells(CELL % "{}"): "the 'outputs' of Cell 0",
    with_cells(PLAIN, PLAIN.replace("{}", "[]")): "the 'metadata' of Cell 1",
    with_cells(PLAIN, PLAIN.replace("{}", '"x"')): "the 'metadata' of Cell 1",
    with_cells(PLAIN.replace("{}", '{"tags": "a"}')): "the tags of Cell 0 are not a list",
    with_cells(PLAIN.replace("{}", '{"tags": [["a"]]}')): "the tags of Cell 0 are not a list",
    with_cells(PLAIN.replace(', "execution_count": 1', "")): "Cell 0 has no 'execution_count'",
    with_cells(PLAIN.replace('"x"', "5")): "the 'source' of Cell 0",
    with_cells(PLAIN.replace('"x"', '["x", 5]')): "nbformat can read",
    with_cells('{"cell_type": "markdown", "source": "x"}', PLAIN): "the cell before Cell 0 has no",
    with_cells(CELL % '["x"]'): "an output of Cell 0 has the wrong type",
    with_cells(CELL % '[{"output_type": "stream", "name": "stdout"}]'): "has no 'text'",
    with_cells(CELL % '[{"output_type": "pyout"}]'): "has an unknown type, 'pyout'",
    with_cells(CELL % SHOWN): "'text/plain' of an output of Cell 0",
    with_cells(CELL % '[{"output_type": "display_data", "metadata": {}}]'): "has no 'data'",
}


@pytest.mark.parametrize(("text", "said"), WRONG_FILES.items(), ids=range(len(WRONG_FILES)))
def test_a_file_that_is_no_notebook_is_named_with_what_is_wrong(lesson, capsys, text, said):
    lesson.write_text(text)
    assert main(["execute", "07"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("07_small.ipynb ... FAILED: it is not a ")
    assert said in line
    assert line.endswith(("save it again in Jupyter", "Resolve it"))
    assert lesson.read_text() == text
    assert main(["probe", "07_small.ipynb", "1", "a", "x"]) == 2
    assert "nbval-tolerance: 07_small.ipynb: it is not a " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["execute", "none.ipynb"], "no notebook is called 'none.ipynb'; there are: 07_small.ipy"),
        (["execute", "empty"], "the folder 'empty' contains no notebook"),
        (
            ["execute", "pyproject.toml"],
            "'pyproject.toml' is not a notebook: its name does not end",
        ),
        (["probe", "none.ipynb", "1", "a", "x"], "there is no file 'none.ipynb'"),
        (["probe", "07_small.ipynb", "9", "a", "x"], "no cell of 07_small.ipynb is shown as [9]"),
    ],
)
def test_a_wrong_name_is_one_sentence(lesson, capsys, arguments, said):
    Path("empty").mkdir()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nbval-tolerance: {said}")


def test_a_folder_without_notebooks_says_what_it_looks_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    find.cache_clear()
    assert main(["execute"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("matches '*.ipynb', 'notebooks/**/*.ipynb'; name one")
    assert "there are" not in line


def test_hidden_files_and_folders_are_left_out_unless_they_are_named(lesson):
    for hidden in (".~07_small.ipynb", ".ipynb_checkpoints/07_a.ipynb", ".old/deep/07_b.ipynb"):
        Path(hidden).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(lesson, hidden)
    config = Config(notebooks=("*.ipynb", "**/*.ipynb", "*/*.ipynb"), folder=Path.cwd())
    for names in ([], ["07"], ["."]):
        found = notebooks.find_notebooks(names, config)
        assert [path.name for path in found] == ["07_small.ipynb"], names
    for name in (".~07_small.ipynb", ".old/deep/07_b.ipynb"):
        assert notebooks.find_notebooks([name], config) == [Path(name)]
    assert notebooks.find_notebooks([".old/deep"], config) == [Path(".old/deep/07_b.ipynb")]
    named = Config(notebooks=(".old/**/*.ipynb",), folder=Path.cwd())
    assert len(notebooks.find_notebooks([], named)) == 1


def test_it_names_the_notebooks_that_there_are(lesson, capsys):
    assert main(["execute", "08"]) == 2
    assert "no notebook is called '08'; there are: 07_small.ipynb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("01", ["notebooks/01_a", "solutions/01_a"]),
        ("01_a", ["notebooks/01_a", "solutions/01_a"]),
        ("solutions/01", ["solutions/01_a"]),
        ("notebooks/01_a.ipynb", ["notebooks/01_a"]),
        ("02", ["notebooks/02_b"]),
        ("02_", ["notebooks/02_b"]),
        ("solutions/0", ["solutions/01_a"]),
        ("011", ["notebooks/011"]),
        ("0", ["notebooks/011", "notebooks/01_a", "notebooks/02_b", "solutions/01_a"]),
        ("lo", ["notebooks/loss_1", "notebooks/loss_2"]),
        ("loss_1.ipynb", ["notebooks/loss_1"]),
    ],
)
def test_the_start_of_a_name_is_enough(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    for path in [
        "01_a.ipynb",
        "02_b.ipynb",
        "011.ipynb",
        "loss_1.ipynb",
        "loss_2.ipynb",
        "solutions/01_a.ipynb",
        "other/01_a.ipynb",
    ]:
        (tmp_path / "notebooks" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notebooks" / path).touch()
    config = Config(notebooks=("notebooks/*.ipynb", "notebooks/solutions/*.ipynb"), folder=tmp_path)
    found = [f"{path.parent.name}/{path.stem}" for path in notebooks.find_notebooks([name], config)]
    assert found == meant


@pytest.mark.parametrize("name", ["loss", "04x", "4_loss", "04_lo.ipynb", "other/04", "04_LOSS"])
def test_what_is_not_the_start_of_a_name_means_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("04_loss.ipynb").touch()
    with pytest.raises(notebooks.NotebookError, match="no notebook is called"):
        notebooks.find_notebooks([name], Config(folder=tmp_path))
