"""Test the detection of cells that train, show numbers or draw random numbers."""

from __future__ import annotations

import nbformat
import pytest

from nbval_tolerance.compare import Phase
from nbval_tolerance.config import Config
from nbval_tolerance.source import (
    Draw,
    libraries,
    phases,
    results,
    unseeded,
    uses,
)

UNTRAINED, FITTED, FIT, TRAINED = Phase
TORCH = "import torch\nfrom torch import nn\n"
KERAS = "import tensorflow as tf\nfrom tensorflow import keras\n"
NEAR = """
class Near(BaseEstimator, TransformerMixin):
    def fit(self, x, y=None):
        self.means = KMeans(2).fit(x)
        return self
"""
JAX = "import jax, jax.numpy as jnp\nfrom jax import grad\n"


def notebook(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["model(x)", "model.fit(x, y)", "print(1)"], [UNTRAINED, FIT, TRAINED]),
        (["# model.fit(x)\nprint('.fit(')", "x = fit"], [UNTRAINED, UNTRAINED]),
        # A cell trains if it calls a training function, either directly or indirectly.
        (
            ["def train(m):\n    m.fit()", "x = 1", "train(m)", "print(1)"],
            [UNTRAINED, UNTRAINED, FIT, TRAINED],
        ),
        (
            ["def a():\n    m.fit()\ndef b():\n    a()", "[b() for _ in range(3)]"],
            [UNTRAINED, FIT],
        ),
        # The order of definitions does not matter, and training functions may be coroutines.
        (["def train():\n    return m.fit()\nloss = train()", "print(1)"], [FIT, TRAINED]),
        (["def b():\n    a()\ndef a():\n    m.fit()", "b()"], [UNTRAINED, FIT]),
        (["def b():\n    a()", "def a():\n    m.fit()", "b()"], [UNTRAINED, UNTRAINED, FIT]),
        (["async def train():\n    m.fit()", "await train()"], [UNTRAINED, FIT]),
        (["async for x in y:\n    m.fit()"], [FIT]),
        (["async with run() as r:\n    m.fit()"], [FIT]),
        # Training functions may also be recursive functions, closures or methods.
        (["def a(n):\n    a(n - 1)\n    m.fit()", "a(3)"], [UNTRAINED, FIT]),
        (
            ["def make():\n    def go():\n        m.fit()\n    return go", "go = make()", "go()"],
            [UNTRAINED, UNTRAINED, FIT],
        ),
        (
            [
                "class A:\n    def go(self):\n        self.inner()\n    def inner(self):\n"
                "        m.fit()\nclass B(A):\n    def go(self):\n        super().go()",
                "b = B()",
                "b.go()",
            ],
            [UNTRAINED, UNTRAINED, FIT],
        ),
        (["go = lambda m: m.fit()", "list(map(go, models))"], [UNTRAINED, FIT]),
        (["groups = means.fit_predict(x)"], [FIT]),
        (["for x in data:\n    optimizer.apply_gradients(g)"], [FIT]),
        (["history = trainer.train_on_batch(x)"], [FIT]),
        (["model.fit_generator(batches)"], [FIT]),
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
        (["!pip install x\n%matplotlib inline\nmodel.fit?", "?model.fit"], [UNTRAINED, UNTRAINED]),
        (["files = !ls\nmodel.fit(x)"], [FIT]),
    ],
)
def test_phases(sources, expected):
    assert phases(notebook(*sources)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # scikit-learn: estimators that only compare, count or scale do not change the phase.
        ("x = StandardScaler().fit_transform(x)", UNTRAINED),
        ("model = RandomForestClassifier(random_state=0)\nmodel.fit(x, y)", UNTRAINED),
        ("KNeighborsClassifier(n_neighbors=3).fit(x, y).score(x, y)", UNTRAINED),
        ("tree = DecisionTreeClassifier()\ncross_val_score(tree, x, y)", UNTRAINED),
        ("make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(x, y)", UNTRAINED),
        ("GridSearchCV(KNeighborsClassifier(), {'n_neighbors': [1, 2]}).fit(x, y)", UNTRAINED),
        # These estimators use solvers or linear algebra.
        ("model = Ridge(alpha=1)\nmodel.fit(x, y)", FITTED),
        ("Ridge().fit(x, y)", FITTED),
        ("pipe = make_pipeline(StandardScaler(), LogisticRegression())\npipe.fit(x, y)", FITTED),
        ("Pipeline([('scale', StandardScaler()), ('svm', SVC())]).fit(x, y)", FITTED),
        ("search = GridSearchCV(SVC(), {'C': [1, 10]}, cv=5)\nsearch.fit(x, y)", FITTED),
        ("search = GridSearchCV(estimator=SVC(), param_grid=g)\n_ = search.fit(x, y)", FITTED),
        ("labels = KMeans(3, random_state=0).fit_predict(x)", FITTED),
        ("PCA(2).fit_transform(x)", FITTED),
        ("cross_val_score(Ridge(), x, y)", FITTED),
        ("cross_validate(make_pipeline(StandardScaler(), SVC()), x, y)", FITTED),
        ("SGDClassifier(random_state=0).partial_fit(x, y)", FITTED),
        (
            "models = {'ridge': Ridge(), 'knn': KNeighborsRegressor()}\n"
            "for name, model in models.items():\n    model.fit(x, y)",
            FITTED,
        ),
        ("for m in [Ridge(), SVC()]:\n    m.fit(x, y)", FITTED),
        ("models = []\nmodels.append(('a', SVC()))\nfor n, m in models:\n    m.fit(x, y)", FITTED),
        ("for Model in (Ridge, Lasso):\n    Model().fit(x, y)", FITTED),
        ("fitted = [m.fit(x, y) for m in (Ridge(), SVC())]", FITTED),
        ("def build(alpha):\n    return Ridge(alpha=alpha)\nbuild(1).fit(x, y)", FITTED),
        ("def run(model, x):\n    return model.fit(x)\nrun(SVC(), x)", FITTED),
        ("if big:\n    m = KNeighborsClassifier()\nelse:\n    m = SVC()\nm.fit(x, y)", FITTED),
        (
            "s = RandomizedSearchCV(SVC(), g).fit(x, y)\ns.best_estimator_.fit(x, y)",
            FITTED,
        ),
        ("clone(SVC()).fit(x, y)", FITTED),
        ("from unknown import make_model\nmake_model().fit(x, y)", FITTED),
        # These two estimators amplify rounding errors.
        ("MLPClassifier(random_state=0).fit(x, y)", FIT),
        ("make_pipeline(StandardScaler(), MLPRegressor()).fit(x, y)", FIT),
        ("cross_val_score(MLPClassifier(), x, y)", FIT),
        ("TSNE(random_state=0).fit_transform(x)", FIT),
        # An estimator defined in the notebook is classified by the code of its methods.
        (
            "class Centre(BaseEstimator, TransformerMixin):\n    def fit(self, x, y=None):\n"
            "        self.mean_ = x.mean()\n        return self\nCentre().fit_transform(x)",
            UNTRAINED,
        ),
        (NEAR + "make_pipeline(Near(), KNeighborsClassifier()).fit(x, y)", FITTED),
        (NEAR + "Near().fit_transform(x)", FITTED),
        (NEAR + "cross_val_score(make_pipeline(Near(), KNeighborsClassifier()), x, y)", FITTED),
        (NEAR + "Near()", UNTRAINED),
    ],
)
def test_not_every_fit_trains_a_network(source, expected):
    imports = """
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Lasso, LogisticRegression, Ridge, SGDClassifier
from sklearn.manifold import TSNE
from sklearn.model_selection import (
    GridSearchCV, RandomizedSearchCV, cross_val_score, cross_validate)
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
"""
    after = TRAINED if expected is FIT else expected
    assert phases(notebook(imports, source, "print(1)")) == [UNTRAINED, expected, after]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import statsmodels.api as sm\nsm.OLS(y, sm.add_constant(x)).fit().summary()", FITTED),
        ("import statsmodels.formula.api as smf\nsmf.ols('y ~ x', data).fit()", FITTED),
        ("from statsmodels.tsa.arima.model import ARIMA\nARIMA(y, order=(1, 0, 0)).fit()", FITTED),
        ("from scipy.optimize import curve_fit\ncurve_fit(f, x, y)", FITTED),
        ("from scipy import optimize\noptimize.minimize(f, x0)", FITTED),
        ("import numpy as np\nnp.polyfit(x, y, 2)", FITTED),
        ("import numpy as np\nnp.polynomial.Polynomial.fit(x, y, 2)", FITTED),
        ("from scipy import stats\nstats.norm.fit(x)", FITTED),
        ("import xgboost as xgb\nxgb.XGBClassifier().fit(x, y)", FITTED),
        ("import xgboost as xgb\nxgb.train(params, data)", FITTED),
        ("import lightgbm as lgb\nlgb.LGBMRegressor().fit(x, y)", FITTED),
        # The class's library is unknown. Only the second notebook imports a deep-learning library.
        ("import sklearn\nfrom mine import Model\nModel().fit(x)", FITTED),
        ("import sklearn, torch\nfrom mine import Model\nModel().fit(x)", FIT),
        # Rounding errors do not grow in hand-written NumPy code.
        ("for _ in range(9):\n    w -= rate * x.T @ (x @ w - y)", UNTRAINED),
        (
            "for _ in range(9):\n    g = x.T @ (x @ w - y)\n    w = w - rate * g",
            UNTRAINED,
        ),
        # The notebook uses scikit-learn and also imports Keras.
        (KERAS + "from sklearn.svm import SVC\nSVC().fit(x, y)", FITTED),
        (KERAS + "from sklearn.preprocessing import StandardScaler as S\nS().fit(x)", UNTRAINED),
        (
            KERAS + "from scikeras.wrappers import KerasClassifier as C\nC(f).fit(x, y)",
            FIT,
        ),
        ("import umap\numap.UMAP().fit_transform(x)", FIT),
    ],
)
def test_other_libraries(source, expected):
    assert phases(notebook(source)) == [expected]


@pytest.mark.parametrize(
    "source",
    [
        KERAS + "model = keras.Sequential([keras.layers.Dense(1)])\nmodel.fit(x, y)",
        KERAS + "class Net(keras.Model):\n    pass\nnet = Net()\nnet.fit(x, y)",
        KERAS + "def build():\n    return keras.Model(a, b)\nbuild().fit(x, y)",
        KERAS + "optimizer = keras.optimizers.Adam()\nfor x in data:\n    optimizer.apply(g, v)",
        KERAS + "for x in data:\n    optimizer.apply(g, v)",
        KERAS + "for _ in range(9):\n    with tf.GradientTape() as tape:\n        loss = f(w)\n"
        "    w.assign_sub(rate * tape.gradient(loss, w))",
        KERAS + "@tf.function\ndef step(x):\n    with tf.GradientTape() as t:\n        l = f(x)\n"
        "    for v, g in zip(vs, t.gradient(l, vs)):\n        v.assign_sub(0.1 * g)\n"
        "for x in data:\n    step(x)",
        KERAS + "for _ in range(9):\n    with tf.GradientTape() as tape:\n        l = f(image)\n"
        "    image += rate * tape.gradient(l, image)",
        "import keras_tuner\ntuner = keras_tuner.RandomSearch(build)\ntuner.search(x, y)",
        TORCH + "optimizer = torch.optim.SGD(model.parameters())\n"
        "for x, y in loader:\n    optimizer.zero_grad()\n    loss = loss_fn(model(x), y)\n"
        "    loss.backward()\n    optimizer.step()",
        TORCH + "def train(model, opt):\n    model.train()\n    for x in loader:\n"
        "        f(model(x)).backward()\n        opt.step()\ntrain(net, torch.optim.Adam(p))",
        TORCH + "for t in range(9):\n    l = f(w)\n    l.backward()\n    with torch.no_grad():\n"
        "        w -= rate * w.grad\n        w.grad = None",
        TORCH + "for t in range(9):\n    loss = f(w)\n    loss.backward()\n    w.data.sub_(w.grad)",
        TORCH + "class Trainer:\n    def __init__(self, model):\n"
        "        self.optimizer = torch.optim.Adam(model.parameters())\n"
        "    def fit(self, data):\n        for x in data:\n            self.step(x)\n"
        "    def step(self, x):\n        f(x).backward()\n        self.optimizer.step()\n"
        "Trainer(net).fit(data)",
        "import lightning as L\ntrainer = L.Trainer(max_epochs=1)\ntrainer.fit(model, loader)",
        "import pytorch_lightning as pl\npl.Trainer().fit(model)",
        "from transformers import Trainer\ntrainer = Trainer(model=model)\ntrainer.train()",
        TORCH + "from helpers import make\ntrainer = make()\ntrainer.train()",
        TORCH + "from engine import train_one_epoch\ntrain_one_epoch(model, loader)",
        TORCH + "import engine\nengine.train(model=model, epochs=5)",
        "from ultralytics import YOLO\nYOLO('n.pt').train(data='coco8.yaml', epochs=3)",
        "from fastai.vision.all import *\nlearn = vision_learner(dls)\nlearn.fine_tune(1)",
        "from stable_baselines3 import PPO\nmodel = PPO('MlpPolicy', env)\nmodel.learn(1000)",
        JAX + "for _ in range(9):\n    w = w - rate * grad(loss)(w)",
        JAX + "@jax.jit\ndef update(w, x):\n    g = jax.grad(loss)(w, x)\n"
        "    return jax.tree_util.tree_map(lambda p, q: p - rate * q, w, g)\n"
        "for x in data:\n    params = update(params, x)",
        JAX + "@jax.value_and_grad\ndef f(w):\n    return (w * w).sum()\n"
        "for _ in range(9):\n    value, g = f(w)\n    w = w - rate * g",
        JAX + "step = jax.jit(lambda w: w - jax.grad(f)(w))\nfor _ in range(9):\n    w = step(w)",
        JAX + "import optax\ndef step(p, s, x):\n    value, g = jax.value_and_grad(f)(p, x)\n"
        "    u, s = optimizer.update(g, s)\n    return optax.apply_updates(p, u), s\n"
        "for x in data:\n    p, s = step(p, s, x)",
        JAX + "jax.lax.fori_loop(0, 99, lambda i, w: w - jax.grad(f)(w), w)",
        JAX + "from flax.training import train_state\n@jax.jit\ndef step(state, x):\n"
        "    return state.apply_gradients(grads=jax.grad(f)(state.params))\nstate = step(state, x)",
        "import pymc as pm\nwith pm.Model():\n    trace = pm.sample(1000, random_seed=1)",
    ],
)
def test_networks_are_trained_in_many_ways(source):
    assert phases(notebook(source, "print(1)")) == [FIT, TRAINED]


@pytest.mark.parametrize(
    "source",
    [
        TORCH + "model.train()\nmodel.train(False)\nmodel.eval()",  # These calls only set a mode.
        TORCH + "loss = f(w)\nloss.backward()\nprint(w.grad)",  # This code only shows a gradient.
        TORCH + "for x in xs:\n    f(x).backward()\n    print(x.grad)",
        TORCH + "for x in xs:\n    f(x).backward()\n    count += 1",
        TORCH + "scheduler = torch.optim.lr_scheduler.StepLR(o, 1)\nscheduler.step()",
        "import gymnasium as gym, torch\nenv = gym.make('CartPole-v1')\nenv.step(action)",
        KERAS + "with tf.GradientTape() as tape:\n    y = x * x\nprint(tape.gradient(y, x))",
        KERAS + "class Net(keras.Model):\n    def train_step(self, data):\n"
        "        self.optimizer.apply_gradients(g)",
        KERAS + "df.apply(f)\ndf['a'].map(g)",
        KERAS + "layer = keras.layers.Normalization()\nlayer.adapt(x)",
        JAX + "for x in xs:\n    print(jax.grad(f)(x))",
        "import torch\nfrom sklearn.model_selection import train_test_split\ntrain_test_split(x)",
        TORCH + "for i, data in enumerate(train_loader):\n    total += model(data)",
        "import pandas as pd\nseries.update(other)",
    ],
)
def test_what_looks_like_training_and_is_none(source):
    assert phases(notebook(source)) == [UNTRAINED]


@pytest.mark.parametrize(
    ("config", "source", "expected"),
    [
        (Config(training=("train_epoch",)), "train_epoch(m)", FIT),
        (Config(training=("train_epoch",)), "self.loop.train_epoch(m)", FIT),
        (Config(training=("train_epoch",)), "def train_epoch(m):\n    pass", UNTRAINED),
        (Config(training=("optimizer.step",)), "self.optimizer.step()", FIT),
        (Config(training=("world.step",)), "env.step()", UNTRAINED),
        (Config(training=("step",)), "env.step()\nother_step()", FIT),
        (Config(training=("step",)), "other_step()", UNTRAINED),
        (Config(deterministic=("fit",)), "model.fit(x)", UNTRAINED),
        (Config(deterministic=("scaler.fit",)), "scaler.fit(x)\nmodel.fit(x)", FIT),
        (Config(deterministic=("warm_up",)), "def warm_up():\n    m.fit()\nwarm_up()", UNTRAINED),
        (
            Config(deterministic=("warm_up",)),
            "def go():\n    m.fit()\ndef warm_up():\n    go()\nwarm_up()\ngo()",
            FIT,
        ),
        (Config(deterministic=("fit",), training=("model.fit",)), "model.fit(x)", UNTRAINED),
    ],
)
def test_a_project_names_calls(config, source, expected):
    assert phases(notebook(source), config) == [expected]


def test_a_fit_after_training_stays_after_training():
    sources = [
        "from sklearn.linear_model import Ridge\nimport keras",
        "Ridge().fit(x, y)",
        "print(1)",
        "keras.Model().fit(x, y)",
        "Ridge().fit(x, y)",
    ]
    assert phases(notebook(*sources)) == [UNTRAINED, FITTED, FITTED, FIT, TRAINED]


def test_text_cells_have_no_phase():
    some = notebook("model.fit()")
    some.cells.insert(0, nbformat.v4.new_markdown_cell("model.fit()"))
    assert phases(some) == [FIT]


def test_calls_in_calls_are_read_in_little_time():
    functions = [f"def f{n}(x):\n    return f{n + 1}(x, {n}) + f{n + 1}(x, x)" for n in range(60)]
    assert phases(notebook("\n".join(functions), "f0(1)\nm.fit()")) == [UNTRAINED, FIT]


MODELS = """
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import *
from sklearn.metrics import accuracy_score, confusion_matrix, mean_squared_error, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
ridge = Ridge().fit(x, y)
logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
"""


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("ridge.score(x, y)", "probability"),
        ("logistic.score(x, y)", "accuracy"),
        ("KMeans(3).fit(x).score(x)", ""),  # a sum of squares
        ("unknown.score(x, y)", "probability"),
        ("logistic.score(x, y), logistic.score(z, w)", "accuracy"),
        ("logistic.score(x, y), ridge.score(z, w)", ""),
        ("for m in (logistic, ridge):\n    print(m.score(x, y))", "probability"),  # or accuracy
        ("m = [(w, logistic.score(x, y)), (w, 3)]\nfor a, b in m:\n    print(b)", "accuracy"),
        ("[m.score(x, y) for m in (logistic, LogisticRegression())]", "accuracy"),
        ("accuracy_score(y, p)", "accuracy"),
        ("mean_squared_error(y, p)", "loss"),
        ("np.sqrt(mean_squared_error(y, p))", "loss"),
        ("r2_score(y, p)", "probability"),
        ("confusion_matrix(y, p)", ""),
        ("cross_val_score(logistic, x, y)", "accuracy"),
        ("cross_val_score(ridge, x, y).mean()", "probability"),
        (
            "s = cross_val_score(ridge, x, y, scoring='neg_mean_squared_error')\n-s",
            "loss",
        ),
        ("s = cross_val_score(logistic, x, y)\ns.mean(), s.std()", "accuracy"),
        ("s = cross_val_score(logistic, x, y)\nprint(s.shape)", ""),
        ("pd.Series(cross_val_score(logistic, x, y)).describe()", "accuracy"),
        ("cross_validate(logistic, x, y)['test_score']", "accuracy"),
        ("search = GridSearchCV(logistic, g).fit(x, y)\nsearch.score(x, y)", "accuracy"),
        (
            "search = GridSearchCV(ridge, g, scoring='neg_root_mean_squared_error').fit(x, y)\n"
            "search.score(x, y)",
            "loss",
        ),
        (
            "r = []\nfor m in (logistic,):\n    r.append(m.score(x, y))\nr",
            "accuracy",
        ),
        ("found = {'a': logistic.score(x, y)}\nprint(found['a'])", "accuracy"),
        ("a, b = ridge.score(x, y), logistic.score(x, y)\nb", "accuracy"),
        (
            "best = 0\nif s > best:\n    best = logistic.score(x, y)\nbest",
            "accuracy",
        ),
        ("print(ridge.score(x, y), logistic.score(x, y))", ""),
        ("print('n', len(x), 'got', round(logistic.score(x, y), 3))", "accuracy"),
        ("print(f'{logistic.score(x, y):.3f}')", "accuracy"),
        ("print('{} of {:.2f}'.format(1, logistic.score(x, y)))", "accuracy"),
        ("print('got %.2f %d' % (logistic.score(x, y), n))", "accuracy"),
        ("print(f'{n:d}: {logistic.score(x, y):.3f}')", "accuracy"),
        ("f'{logistic.score(x, y):.3f}'", "accuracy"),
        ("text = 'got {:.3f}'.format(logistic.score(x, y))\nprint(text)", "accuracy"),
        ("'got %.3f' % logistic.score(x, y)", "accuracy"),
        ("' '.join(names)", ""),
        # The loss is named in the text, so it does not affect the kind of the other number.
        ("print('MSE', mean_squared_error(y, p), 'and', logistic.score(x, y))", "accuracy"),
        ("100 * accuracy_score(y, p)", "percentage"),
        ("1 - accuracy_score(y, p)", "accuracy"),
        ("accuracy_score(y, p) > 0.9", ""),
        ("accuracy_score(y, p) * unknown", ""),
        ("accuracy = accuracy_score(y, p) * unknown\naccuracy", "accuracy"),
        ("print(weights, accuracy_score(y, p))", ""),
        ("logistic.score(x, y);", ""),
        ("logistic.score(x, y)  # of all\n", "accuracy"),
        ("logistic.predict_proba(x)", "probability"),
        ("def rate(m):\n    return m.score(x, y)\nrate(logistic)", "accuracy"),
        ("def rate(m):\n    print(m.score(x, y))\nrate(logistic)", "accuracy"),
        ("%time logistic.score(x, y)", "accuracy"),
        # Only the identifier reveals the kind.
        ("test_accuracy", "accuracy"),
        ("helper.compute_rmse(y, p)", "loss"),
        ("history.history['val_loss'][-1]", "loss"),
        # These numbers depend on the run.
        ("import os\nos.getpid()", "id"),
        ("import os\npid = os.getpid()\nprint('process', pid)", "id"),
        ("import threading\nthreading.get_native_id()", "id"),
        ("import time\nbegan = time.time()\ntime.time() - began", "duration"),
        ("from timeit import default_timer as clock\nprint(clock())", "duration"),
        ("import time\nprint(time.perf_counter(), logistic.score(x, y))", ""),
        ("plot_accuracy(history)", ""),
        ("learning_rate", ""),
        ("ridge", ""),
        ("x", ""),
        ("", ""),
        ("not even (Python", ""),
    ],
)
def test_results(source, kind):
    assert results(notebook(MODELS, source)) == ["", kind]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("model.evaluate(x, y)", ""),  # a loss and an accuracy
        ("model.evaluate(x, y)[1]", "accuracy"),
        ("loss, accuracy = model.evaluate(x, y)\naccuracy", "accuracy"),
        ("a, b = model.evaluate(x, y)\nprint(b)", "accuracy"),
        ("a, b = model.evaluate(x, y)\nprint(round(a, 3))", "loss"),
        ("model.compile('sgd', 'mse')\nmodel.evaluate(x, y)", "loss"),
        ("keras.losses.MeanSquaredError()(y, p)", "loss"),
        ("keras.losses.mse(y, p).numpy()", "loss"),
        ("m = keras.metrics.SparseCategoricalAccuracy()\nm.result()", "accuracy"),
        ("tf.nn.softmax(logits)", "probability"),
        ("tf.reduce_mean(x)", ""),
    ],
)
def test_results_of_keras(source, kind):
    compiled = (
        KERAS + "model = keras.Sequential()\nmodel.compile('sgd', 'mse', metrics=['accuracy'])"
    )
    assert results(notebook(compiled, source)) == ["", kind]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("loss_fn = nn.CrossEntropyLoss()\nl = loss_fn(model(x), y)\nl.item()", "loss"),
        ("import torch.nn.functional as F\nprint(F.cross_entropy(out, y))", "loss"),
        ("torch.rand(3)", ""),
        ("for e in range(3):\n    running_loss = f(e)\nprint(running_loss / len(loader))", "loss"),
    ],
)
def test_results_of_torch(source, kind):
    assert results(notebook(TORCH, source)) == ["", kind]


def test_a_result_of_an_earlier_cell():
    assert results(notebook(MODELS, "s = logistic.score(x, y)", "print(s)", "s")) == [
        *("", "", "accuracy", "accuracy")
    ]


@pytest.mark.parametrize(
    ("source", "call", "seed"),
    [
        ("import numpy as np\nnp.random.rand(3)", "np.random.rand", "np.random.seed(0)"),
        ("from numpy.random import randn\nrandn(3)", "randn", "np.random.seed(0)"),
        (
            "import numpy as np\nrng = np.random.default_rng()\nrng.normal()",
            "np.random.default_rng",
            "np.random.default_rng(0)",
        ),
        (
            "import numpy as np\nnp.random.default_rng(None)",
            "np.random.default_rng",
            "np.random.default_rng(0)",
        ),
        ("import random\nrandom.shuffle(x)", "random.shuffle", "random.seed(0)"),
        ("import torch\ntorch.randn(3)", "torch.randn", "torch.manual_seed(0)"),
        (TORCH + "nn.Linear(1, 1)", "nn.Linear", "torch.manual_seed(0)"),
        (
            TORCH
            + "class Net(nn.Module):\n    def __init__(self):\n        self.a = nn.Linear(1, 1)\n"
            "net = Net()",
            "nn.Linear",
            "torch.manual_seed(0)",
        ),
        (
            TORCH + "from torch.utils.data import DataLoader\nDataLoader(d, shuffle=True)",
            "DataLoader",
            "torch.manual_seed(0)",
        ),
        (KERAS + "tf.random.normal([3])", "tf.random.normal", "tf.random.set_seed(0)"),
        (
            KERAS + "keras.Sequential([keras.layers.Dense(1)])",
            "keras.layers.Dense",
            "keras.utils.set_random_seed(0)",
        ),
        (
            "from sklearn.model_selection import train_test_split\ntrain_test_split(x, y)",
            "train_test_split",
            "random_state=0",
        ),
        (
            "from sklearn.ensemble import RandomForestClassifier as F\nF(n_estimators=9)",
            "F",
            "random_state=0",
        ),
        ("from sklearn.datasets import make_moons\nmake_moons(9)", "make_moons", "random_state=0"),
        (
            "from sklearn.model_selection import KFold\nKFold(5, shuffle=True)",
            "KFold",
            "random_state=0",
        ),
        ("import pandas as pd\ndf.sample(5)", "df.sample", "random_state=0"),
        ("from scipy import stats\nstats.norm.rvs(size=3)", "stats.norm.rvs", "random_state=0"),
        ("import seaborn as sns\nsns.barplot(data=df)", "sns.barplot", "seed=0"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4", ""),
        ("import os\nos.urandom(3)", "os.urandom", ""),
        ("import tempfile\ntempfile.mkdtemp()", "tempfile.mkdtemp", ""),
        ("id('a')", "id", ""),
        ("import random\nrandom.choice('abc')", "random.choice", "random.seed(0)"),
        (
            "import numpy as np\nnp.random.permutation(list('abc'))",
            "np.random.permutation",
            "np.random.seed(0)",
        ),
        ("import secrets\nsecrets.token_hex(4)", "secrets.token_hex", ""),
    ],
)
def test_unseeded(source, call, seed):
    assert unseeded(notebook("", source, "print(1)")) == [(), *2 * [(Draw(1, call, seed),)]]


@pytest.mark.parametrize(
    ("sources", "used"),
    [
        (["x = 1", "y = 2", "print(x)"], {0, 2}),
        (["x = 1", "y = x", "print(y)"], {0, 1, 2}),
        (["x = 1", "x = 2", "print(x)"], {1, 2}),
        (["import random\nx = []", "random.shuffle(x)", "x"], {0, 1, 2}),
        (["import random\nx = []", "random.shuffle(y)", "random, x"], {0, 2}),
        (["x = []", "x.append(random())", "x"], {0, 1, 2}),
        (["x = []", "x[0] = random()\nx.name = 1", "x"], {0, 1, 2}),
        (["x = []", "print(x, random())", "x"], {0, 2}),
        (["x = 1\ndef f():\n    return x", "y = 1", "f()"], {0, 2}),
        # A name that a cell defines itself does not refer to earlier cells.
        (["[i for i in x]", "print(i)"], {1}),
        (["i = 1", "[i for i in x]"], {1}),
        (["i = 1", "for i in x:\n    print(i)"], {1}),
        (["x = 1", "x = 2\nprint(x)"], {1}),
        (["x = 1", "if y:\n    x = 2\nprint(x)"], {0, 1}),
        (["x = 1", "x = x + 1"], {0, 1}),
        (["x = 1", "x += 1"], {0, 1}),
        (["x = 1", "sorted(y, key=lambda x: x)"], {1}),
        (["x = 1", "def f(x):\n    return x\nf(2)"], {1}),
        (["def f():\n    x = 1", "print(x)"], {1}),
        (["def f():\n    global x\n    x = 1\nf()", "print(x)"], {0, 1}),
        (["x = 1", "def f():\n    return x\nf()"], {0, 1}),
        (["x = await f()", "print(await g(x))"], {0, 1}),
        (["x = [i async for i in f()]", "print(x)"], {0, 1}),
        (["not even (Python", "x"], {1}),
    ],
)
def test_the_cells_whose_variables_a_cell_uses(sources, used):
    assert uses(notebook(*sources))[-1] == used


@pytest.mark.parametrize(
    "source",
    [
        "hash('text')",  # kernels set PYTHONHASHSEED
        "import numpy as np\nnp.random.seed(0)\nnp.random.rand(3)",
        "import numpy as np\nnp.random.default_rng(0).normal()",
        "import numpy as np\nnp.random.default_rng(seed=0)\nnp.random.RandomState(1)",
        "import numpy as np\ndef f(seed=1):\n    return np.random.RandomState(seed).rand()\nf()",
        "import random\nrandom.seed(1)\nrandom.random()\nrandom.Random(3).random()",
        "import torch\ntorch.manual_seed(0)\ntorch.rand(3)\ntorch.nn.Linear(1, 1)",
        KERAS + "keras.utils.set_random_seed(1)\nkeras.layers.Dense(1)\ntf.random.normal([3])",
        KERAS + "keras.layers.Flatten()\ntf.random.stateless_normal([3], [1, 2])",
        "from sklearn.model_selection import train_test_split\ntrain_test_split(x, random_state=0)",
        "import numpy as np\nnp.random.seed(0)\nfrom sklearn.cluster import KMeans\nKMeans(3)",
        "from sklearn.linear_model import Ridge\nfrom sklearn.svm import SVC\nRidge()\nSVC()",
        "from sklearn.model_selection import KFold\nKFold(5)",
        "from sklearn.cluster import KMeans\nKMeans(**options)",
        "from helpers import set_seeds\nimport torch\nset_seeds(42)\ntorch.rand(3)",
        "import torch\ndef set_seed(n):\n    torch.manual_seed(n)\nset_seed(3)\ntorch.rand(3)",
        "import lightning as L, torch\nL.seed_everything(1)\ntorch.rand(3)",
        "import jax\njax.random.normal(jax.random.PRNGKey(0))",
        "df.sample(5)",  # The type of df is unknown.
        "def draw():\n    return np.random.rand()",  # Nothing calls it.
    ],
)
def test_seeded(source):
    assert unseeded(notebook(source)) == [()]


def test_the_nearest_draw_comes_first():
    rand, shuffle = "import numpy as np\nnp.random.rand()", "import random\nrandom.shuffle(x)"
    first = Draw(0, "np.random.rand", "np.random.seed(0)")
    second = Draw(1, "random.shuffle", "random.seed(0)")
    # A seed in a later cell does not affect earlier draws.
    seed = "np.random.seed(0)\nnp.random.rand()"
    assert unseeded(notebook(rand, shuffle, seed)) == [(first,), *2 * [(second, first)]]


@pytest.mark.parametrize(
    ("identifier", "kind"),
    [
        ("val_accuracy", "accuracy"),
        ("SparseCategoricalAccuracy", "accuracy"),
        ("roc_auc_score", "accuracy"),
        ("f1", "accuracy"),
        ("CrossEntropyLoss", "loss"),
        ("MSELoss", "loss"),
        ("neg_root_mean_squared_error", "loss"),
        ("rmse_cv", "loss"),
        ("r2_score", "probability"),
        ("y_proba", "probability"),
        ("error_percent", "percentage"),
        ("threshold_for_90_precision", ""),
        ("score_samples", ""),
        ("log_prob", ""),
        ("glossary", ""),
        ("accumulate", ""),
        ("plot_loss", ""),
        ("precision_recall_curve", ""),
    ],
)
def test_identifiers_tell_kinds(identifier, kind):
    assert libraries.kind_of(identifier) == kind
