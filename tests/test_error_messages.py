"""Check that the glossary lists error messages in the words that TensorFlow and Python print.

Learners search for the words of a message. `error_messages.toml` has a mistake for each message in
the glossary. If an upgrade changes the words of a message, change both files.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUPS = tomllib.loads((ROOT / "tests/error_messages.toml").read_text())
CODE = re.compile(r"(?<!`)(`+)(?!`) ?(.+?) ?(?<!`)\1(?!`)")

# Reads a dictionary of mistakes, makes each of them with the names that the first lines define, and
# prints a dictionary of what Python prints last.
SCRIPT = """
import json, sys, traceback
import matplotlib.pyplot as plt, numpy as np, tensorflow as tf
from tensorflow.keras import Input, Sequential, layers

x = np.random.default_rng(0).random((64, 28, 28), dtype="float32")
y = np.arange(64) % 10
one_hot = tf.keras.utils.to_categorical(y)
loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

def model(units=10, optimizer="adam", loss=loss_fn, metrics=None):
    made = Sequential([Input((28, 28)), layers.Flatten(), layers.Dense(units)])
    made.compile(optimizer, loss, metrics=metrics)
    return made

tf.keras.utils.disable_interactive_logging()
messages = {}
for words, code in json.load(sys.stdin).items():
    try:
        exec(code, dict(globals()))
        messages[words] = "no error"
    except Exception as error:
        messages[words] = "".join(traceback.format_exception_only(error))
print(json.dumps(messages))
"""


def table() -> dict[str, list[str]]:
    """Return a dictionary from each group of the glossary's table to the messages it lists."""
    section = (ROOT / "notebooks/glossary.md").read_text().partition("\n## Error messages\n")[2]
    groups = re.split(r"^### (.+)\n", section, flags=re.M)
    return {name: messages(text) for name, text in zip(groups[1::2], groups[2::2], strict=True)}


def messages(text: str) -> list[str]:
    """Return the code in the first column of a Markdown table."""
    rows = re.findall(r"^\| ([^|]+) \|", text, re.M)
    return [words for row in rows for _, words in CODE.findall(row)]


def test_each_mistake_prints_its_message(tmp_path):
    mistakes = {words: code for group in GROUPS.values() for words, code in group.items()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(mistakes),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert {words: said for words, said in printed.items() if words not in said} == {}


def test_the_glossary_lists_exactly_these_messages():
    assert table() == {name: list(mistakes) for name, mistakes in GROUPS.items()}
