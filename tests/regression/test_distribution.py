"""Test nbval-tolerance as another project would use it, installed from the wheel and the sdist."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.network

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packages" / "nbval-tolerance"
UV = Path(sys.executable).with_name("uv")
# The lock files pin the newest versions that we have tested.
LOCKS = [ROOT / "requirements" / name for name in ("course.txt", "test.txt")]
OTHERS = {"scikit-learn": "1.7.2"}  # packages that the test project uses

CLASSIFIER = [
    "from sklearn.datasets import load_iris\n"
    "from sklearn.linear_model import LogisticRegression\n"
    "from sklearn.metrics import accuracy_score, classification_report\n"
    "from sklearn.model_selection import train_test_split",
    "x, y = load_iris(return_X_y=True)\n"
    "x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)",
    "model = LogisticRegression(max_iter=1000).fit(x_train, y_train)\nmodel",
    "model.score(x_test, y_test)",
    "accuracy_score(y_test, model.predict(x_test))",
    "print(classification_report(y_test, model.predict(x_test)))",
    "print('log loss of the first flower', model.predict_log_proba(x_test)[0].round(4))",
]
# A training loop in PyTorch's style that does not need PyTorch, which takes hundreds of megabytes.
# By default, the plugin does not recognise this loop's method names.
LOOP = [
    "import numpy as np\n\n\nclass Model:\n    weight = 0.0\n\n    def parameters(self):\n"
    "        return self.weight",
    "class Loss:\n    def __init__(self, value):\n        self.value = value\n\n"
    "    def flow_back(self):\n        pass\n\n    def item(self):\n        return self.value\n\n\n"
    "class Optimizer:\n    def zero_grad(self):\n        pass\n\n    def advance(self):\n"
    "        model.weight += 0.1",
    "model, optimizer = Model(), Optimizer()\nprint('untrained weight', model.weight)",
    "for epoch in range(3):\n    optimizer.zero_grad()\n    loss = Loss(1 / (1 + model.weight))\n"
    "    loss.flow_back()\n    optimizer.advance()\n"
    "    print(f'epoch {epoch} loss {loss.item():.4f}')",
    "print(f'test loss {1 / (1 + model.weight):.4f}')",
]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheel and the sdist; return their paths by suffix."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", folder]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="session", params=["newest", "lowest"])
def python(request: pytest.FixtureRequest, built, tmp_path_factory) -> Path:
    """Create an environment with the newest or oldest supported dependencies; return its Python."""
    folder = tmp_path_factory.mktemp(request.param) / "environment"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    executable = folder / "bin" / "python"
    command = [UV, "pip", "install", "--quiet", "--python", executable]
    if request.param == "newest":
        what = [built[".whl"], *(f"--constraint={lock}" for lock in LOCKS)]
    else:
        metadata = zipfile.ZipFile(built[".whl"]).read(
            f"nbval_tolerance-{version()}.dist-info/METADATA"
        )
        lowest = re.findall(r"^Requires-Dist: (\w+)<\S+,>=(\S+)$", metadata.decode(), re.M)
        assert len(lowest) == 5
        # Install from the sdist here; the test with the newest versions installs the wheel.
        what = [built[".gz"], *(f"{name}=={number}" for name, number in lowest)]
    subprocess.run([*command, *what], check=True)
    return executable


def version() -> str:
    text = (PACKAGE / "src" / "nbval_tolerance" / "__init__.py").read_text()
    return re.search(r'__version__ = "(.+)"', text)[1]


@pytest.fixture(scope="session")
def project(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a project with two notebooks, execute them, and return its folder."""
    command = [UV, "pip", "install", "--quiet", "--python", python, "--no-build"]
    subprocess.run([*command, *(f"{n}=={v}" for n, v in OTHERS.items())], check=True)
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text('[tool.nbval-tolerance]\ntraining = ["advance"]\n')
    for name, sources in {"classifier": CLASSIFIER, "loop": LOOP}.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    executed = run(python, folder, "nbval-tolerance", "execute", "--accept")
    assert executed.returncode == 0, executed.stdout + executed.stderr
    return folder


def run(python: Path, folder: Path, program: str, *arguments) -> subprocess.CompletedProcess[str]:
    command = [python.with_name(program), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_it_brings_nothing_that_it_does_not_need(python):
    listed = subprocess.run(
        [UV, "pip", "freeze", "--python", python], check=True, capture_output=True, text=True
    ).stdout
    names = set(re.findall(r"^[\w.-]+", listed, re.M))
    assert {"nbval", "nbclient", "numpy", "pillow", "pytest"} <= names
    assert not {name for name in names if re.match("jupyterlab|notebook|nbconvert|tensor", name)}
    assert "tfcourse" not in names
    settings = python.parents[1] / "etc" / "ipython"
    assert not settings.exists(), "the course's kernel settings were installed"


def test_other_projects_notebooks_are_green(python, project):
    said = run(python, project, "pytest", "-q", "--nbval", "--nbval-tolerance", ".")
    assert said.returncode == 0, said.stdout
    assert f"{len(CLASSIFIER) + len(LOOP) + 2} passed" in said.stdout


@pytest.mark.parametrize(
    ("notebook", "old", "new", "message"),
    [
        ("classifier", "random_state=0", "random_state=1", "became"),
        ("classifier", "max_iter=1000", "C=0.5, max_iter=1000", "became"),
        ("loop", "+= 0.1", "+= 0.3", "epoch 1 loss"),
        ("loop", "weight = 0.0", "weight = 0.001", "untrained weight"),
    ],
)
def test_a_wrong_number_is_red_with_what_became_of_it(
    python, project, tmp_path, notebook, old, new, message
):
    (tmp_path / "pyproject.toml").write_text((project / "pyproject.toml").read_text())
    content = nbformat.read(project / f"{notebook}.ipynb", as_version=4)
    (cell,) = (cell for cell in content.cells if old in cell.source)
    cell.source = cell.source.replace(old, new)
    nbformat.write(content, tmp_path / f"{notebook}.ipynb")
    arguments = ["-q", "--nbval", "--nbval-tolerance", "-k", "not stored"]
    said = run(python, tmp_path, "pytest", *arguments, ".")
    assert said.returncode == 1, said.stdout
    assert re.search(rf"{notebook}\.ipynb, Cell \d, shown as \[\d\]: line", said.stdout)
    assert message in said.stdout


def test_the_first_loop_is_training_only_because_the_project_says_so(python, project, tmp_path):
    (tmp_path / "loop.ipynb").write_text((project / "loop.ipynb").read_text())
    content = nbformat.read(tmp_path / "loop.ipynb", as_version=4)
    content.cells[-1].outputs[0].text = content.cells[-1].outputs[0].text.replace("0.76", "0.77")
    nbformat.write(content, tmp_path / "loop.ipynb")
    arguments = ["-q", "--nbval", "--nbval-tolerance", "."]
    said = run(python, tmp_path, "pytest", *arguments)
    assert "0.7792 became 0.7692" in said.stdout, "without the setting, only rounding errors pass"
    (tmp_path / "pyproject.toml").write_text((project / "pyproject.toml").read_text())
    assert run(python, tmp_path, "pytest", *arguments).returncode == 0


def test_the_types_are_there(built):
    names = zipfile.ZipFile(built[".whl"]).namelist()
    assert "nbval_tolerance/py.typed" in names
    assert not [name for name in names if not name.startswith("nbval_tolerance")]
