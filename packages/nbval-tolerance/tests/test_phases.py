"""Where a notebook trains, found in its sources."""

from __future__ import annotations

import nbformat
import pytest
from nbval_tolerance.compare import Phase
from nbval_tolerance.phases import phases

UNTRAINED, FIT, TRAINED = Phase


def notebook(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["model(x)", "model.fit(x, y)", "print(1)"], [UNTRAINED, FIT, TRAINED]),
        (["# model.fit(x)\nprint('.fit(')", "x = fit"], [UNTRAINED, UNTRAINED]),
        # A function that trains does so when it is called, and so does what calls it.
        (
            ["def train(m):\n    m.fit()", "x = 1", "train(m)", "print(1)"],
            [UNTRAINED, UNTRAINED, FIT, TRAINED],
        ),
        (
            ["def a():\n    m.fit()\ndef b():\n    a()", "[b() for _ in range(3)]"],
            [UNTRAINED, FIT],
        ),
        # In one cell, too, in any order, and as a coroutine.
        (["def train():\n    return m.fit()\nloss = train()", "print(1)"], [FIT, TRAINED]),
        (["def b():\n    a()\ndef a():\n    m.fit()", "b()"], [UNTRAINED, FIT]),
        (["def b():\n    a()", "def a():\n    m.fit()", "b()"], [UNTRAINED, UNTRAINED, FIT]),
        (["async def train():\n    m.fit()", "await train()"], [UNTRAINED, FIT]),
        (["groups = means.fit_predict(x)"], [FIT]),
        (["for x in data:\n    optimizer.apply_gradients(g)"], [FIT]),
        (["history = trainer.train_on_batch(x)"], [FIT]),
        (["%time model.fit(x)", "print(1)"], [FIT, TRAINED]),
        (["%%time\nmodel.fit(x)"], [FIT]),
        (["%%capture out --no-stderr\nmodel.fit(x)", "print(1)"], [FIT, TRAINED]),
        (["history = %time model.fit(x)"], [FIT]),
        (["%timeit -n 1 -r1 model.fit(x)"], [FIT]),
        (
            ["def train():\n    x = 1\n    %time h = m.fit(x)\n    return h", "train()"],
            [UNTRAINED, FIT],
        ),
        (["x = 10\nx %time", "print('%time model.fit(x)')"], [UNTRAINED, UNTRAINED]),
        (["%%bash\necho 'not Python", "not even (Python"], [UNTRAINED, UNTRAINED]),
    ],
)
def test_phases(sources, expected):
    assert phases(notebook(*sources)) == expected


def test_text_cells_have_no_phase():
    some = notebook("model.fit()")
    some.cells.insert(0, nbformat.v4.new_markdown_cell("model.fit()"))
    assert phases(some) == [FIT]
