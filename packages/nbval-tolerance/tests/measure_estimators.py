"""Measure how much the results of models other than deep networks vary between machines.

Run the script by hand:

    python measure_estimators.py

The script needs scikit-learn and SciPy, and uses statsmodels, XGBoost and LightGBM if they are
installed. The script fits each model on a small data set, in float64 and float32, with several BLAS
kernels, vector instruction sets and thread counts. In two more runs, the data change by one unit in
the last place, to simulate processors and compilers that we do not have. Each column shows the
largest change of any number, as a share of the tolerance before training, `2e-6 + 2e-5·|x|`. A
notebook cell with a share above 1 would fail.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np

ABSOLUTE, RELATIVE = 2e-6, 2e-5
MACHINES = {
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "no AVX-512": {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"},
    "no AVX2": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
}
JITTERS = {"jitter 1": {"JITTER": "1"}, "jitter 2": {"JITTER": "2"}}
FITTED = (
    *("coef_", "coefs_", "cluster_centers_", "means_", "components_", "embedding_"),
    *("explained_variance_ratio_", "feature_importances_", "inertia_", "labels_"),
)


def regressors() -> Iterator:
    """Yield regressors that are common in lessons."""
    from sklearn import ensemble, linear_model, neighbors, svm, tree
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    yield linear_model.LinearRegression()
    yield linear_model.Ridge()
    yield linear_model.Lasso(alpha=0.1)
    yield linear_model.ElasticNet(alpha=0.1)
    yield linear_model.HuberRegressor(max_iter=1000)
    yield linear_model.BayesianRidge()
    yield make_pipeline(PolynomialFeatures(2), linear_model.LinearRegression())
    yield make_pipeline(StandardScaler(), svm.SVR())
    yield neighbors.KNeighborsRegressor()
    yield tree.DecisionTreeRegressor(random_state=0)
    yield ensemble.RandomForestRegressor(20, random_state=0)
    yield ensemble.GradientBoostingRegressor(random_state=0)
    yield ensemble.HistGradientBoostingRegressor(random_state=0)
    yield GaussianProcessRegressor(alpha=0.1, normalize_y=True)
    yield make_pipeline(StandardScaler(), linear_model.SGDRegressor(random_state=0))
    yield make_pipeline(StandardScaler(), MLPRegressor(max_iter=500, random_state=0))
    try:
        from xgboost import XGBRegressor

        yield XGBRegressor(n_estimators=50, random_state=0)
    except ImportError:
        pass
    try:
        from lightgbm import LGBMRegressor

        yield LGBMRegressor(n_estimators=50, random_state=0, verbose=-1)
    except ImportError:
        pass


def classifiers() -> Iterator:
    """Yield classifiers that are common in lessons, and models for clustering and embedding."""
    from sklearn import (
        cluster,
        decomposition,
        ensemble,
        linear_model,
        manifold,
        naive_bayes,
        neighbors,
        neural_network,
        svm,
        tree,
    )
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def scaled(estimator):
        return make_pipeline(StandardScaler(), estimator)

    yield linear_model.LogisticRegression()
    yield scaled(linear_model.LogisticRegression())
    yield scaled(linear_model.LogisticRegression(solver="saga", random_state=0))
    yield scaled(linear_model.Perceptron(random_state=0))
    yield linear_model.SGDClassifier(random_state=0)
    yield svm.SVC()
    yield scaled(svm.SVC())
    yield scaled(svm.LinearSVC(random_state=0))
    yield neighbors.KNeighborsClassifier()
    yield naive_bayes.GaussianNB()
    yield LinearDiscriminantAnalysis()
    yield tree.DecisionTreeClassifier(random_state=0)
    yield ensemble.RandomForestClassifier(20, random_state=0)
    yield ensemble.AdaBoostClassifier(n_estimators=20, random_state=0)
    yield ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0)
    yield GridSearchCV(scaled(svm.SVC()), {"svc__C": [0.1, 1, 10]})
    yield neural_network.MLPClassifier(max_iter=500, random_state=0)
    yield scaled(neural_network.MLPClassifier((50, 50), solver="sgd", random_state=0))
    yield neural_network.BernoulliRBM(20, random_state=0)
    yield cluster.KMeans(10, n_init=3, random_state=0)
    yield cluster.MiniBatchKMeans(10, n_init=3, random_state=0)
    yield cluster.DBSCAN(eps=20)
    yield cluster.AgglomerativeClustering(10)
    yield cluster.SpectralClustering(10, affinity="nearest_neighbors", random_state=0)
    yield GaussianMixture(3, covariance_type="diag", random_state=0)
    yield decomposition.PCA(2)
    yield decomposition.PCA(2, svd_solver="randomized", random_state=0)
    yield decomposition.NMF(5, init="random", random_state=0, max_iter=400)
    yield decomposition.FastICA(3, random_state=0)
    yield decomposition.LatentDirichletAllocation(5, random_state=0)
    yield manifold.Isomap()
    yield manifold.LocallyLinearEmbedding(random_state=0)
    yield manifold.TSNE(random_state=0)
    yield manifold.TSNE(init="random", random_state=0)


def functions(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the names and results of fits that do not call an estimator's `fit`."""
    from scipy.optimize import curve_fit, minimize
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_score

    def decay(t, a, b, c):
        return a * np.exp(-b * t) + c

    yield "cross_val_score(Ridge)", cross_val_score(Ridge(), x, y)
    t = x[:60, 2] - x[:60, 2].min()
    noisy = decay(t, 2.5, 1.3, 0.5) + y[:60] / 1000
    yield "np.polyfit, degree 3", np.polyfit(t, noisy, 3)
    yield "np.polyfit, degree 12", np.polyfit(t, noisy, 12)
    yield "scipy curve_fit", curve_fit(decay, t, noisy)[0]
    yield (
        "scipy minimize, BFGS",
        minimize(lambda p: ((decay(t, *p) - noisy) ** 2).sum(), [1, 1, 1]).x,
    )
    w = np.zeros(x.shape[1], x.dtype)
    for _ in range(1000):
        w -= 0.1 * x.T @ (x @ w - y + y.mean()) / len(y)
    yield "NumPy, linear regression by gradient descent", w
    for rate in (0.1, 0.3):  # with 0.3, training barely converges
        yield f"NumPy, network by gradient descent, rate {rate}", network(x, y, rate)
    try:
        import statsmodels.api as sm
    except ImportError:
        return
    design, high = sm.add_constant(x), y > y.mean()
    yield "statsmodels OLS", summary(sm.OLS(y, design).fit())
    yield "statsmodels Logit", summary(sm.Logit(high, design).fit(disp=0))
    yield "statsmodels GLM, Poisson", summary(sm.GLM(y, design, sm.families.Poisson()).fit())
    series = np.cumsum(x[:120, 2])
    yield "statsmodels ARIMA(2, 0, 1)", summary(sm.tsa.ARIMA(series, order=(2, 0, 1)).fit())


def summary(fit) -> np.ndarray:
    """Return the numbers shown in the summary of a statsmodels result."""
    return np.concatenate([fit.params, fit.bse, fit.pvalues, [fit.llf]])


def network(x: np.ndarray, y: np.ndarray, rate: float) -> np.ndarray:
    """Train a hand-written network with one hidden layer for 3000 steps, and return its outputs."""
    random = np.random.default_rng(0)
    a = random.normal(size=(x.shape[1], 30)).astype(x.dtype) / 3
    b = random.normal(size=30).astype(x.dtype) / 5
    target = ((y - y.mean()) / y.std()).astype(x.dtype)
    for _ in range(3000):
        hidden = np.maximum(x @ a, 0)
        error = (hidden @ b - target) / len(x)
        slope = x.T @ (np.outer(error, b) * (hidden > 0))
        a, b = a - rate * slope, b - rate * hidden.T @ error
    return np.maximum(x @ a, 0) @ b


def name_of(estimator) -> str:
    """Return a name that lists an estimator, its components and their solvers."""
    if hasattr(estimator, "steps"):
        return " + ".join(name_of(step) for _, step in estimator.steps)
    parameters = estimator.get_params(deep=False)
    shown = [parameters[n] for n in ("solver", "svd_solver", "init") if n in parameters]
    inner = parameters.get("estimator")
    shown += [name_of(inner)] if hasattr(inner, "fit") else []
    return f"{type(estimator).__name__}({', '.join(str(s) for s in shown if s is not None)})"


def results(dtype: str, jitter: int) -> dict[str, dict[str, list[float]]]:
    """Fit all models, and return the numbers by name and kind (`score`, `labels`, `numbers`)."""
    from sklearn import datasets

    data = []
    for load in (datasets.load_digits, datasets.load_diabetes):
        x, y = load(return_X_y=True)
        random = np.random.default_rng(0)
        x = 3 * (x / x.std() + 0.1 * random.normal(size=x.shape))[:450]  # no ties, no constants
        x = x.astype(dtype)
        if jitter:
            ulps = np.random.default_rng(jitter).integers(-1, 2, x.shape)
            x = (x * (1 + np.finfo(dtype).eps * ulps)).astype(dtype)
        data.append((x, y[:450]))
    (digits, labels), (diabetes, progress) = data
    found = {}
    for estimators, x, y in ((regressors, diabetes, progress), (classifiers, digits, labels)):
        for estimator in estimators():
            if type(estimator).__name__ in ("NMF", "LatentDirichletAllocation", "BernoulliRBM"):
                x = abs(x)  # these models need nonnegative values
            name = name_of(estimator)
            found[name + " again" if name in found else name] = outcome(estimator, x, y)
    for name, numbers in functions(diabetes / 3, progress):
        found[name] = {"numbers": np.ravel(numbers).tolist()}
    return found


def outcome(estimator, x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    """Fit on half of the data, and return the values that a lesson would print, by kind."""
    half = len(x) // 2
    estimator.fit(x[:half], y[:half])
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    numbers = [getattr(last, name) for name in FITTED if hasattr(last, name)]
    found = {"labels": [], "numbers": []}
    if hasattr(estimator, "score"):
        found["score"] = [float(estimator.score(x[half:], y[half:]))]
    for method in ("predict", "predict_proba"):
        if hasattr(estimator, method):
            numbers.append(getattr(estimator, method)(x[half:]))
    for one in numbers:
        for part in one if isinstance(one, list) else [one]:
            part = np.asarray(part)
            found["labels" if part.dtype.kind in "iu" else "numbers"] += np.ravel(part).tolist()
    return found


def used(old: list[float], new: list[float]) -> float:
    """Return the largest change of a number, as a share of its tolerance."""
    shares = [abs(a - b) / (ABSOLUTE + RELATIVE * abs(a)) for a, b in zip(old, new, strict=True)]
    return max(shares, default=0.0)


def row(stored: dict, runs: dict[str, dict], names: list[str]) -> str:
    """Return the table cells for a model and data type: score, numbers, labels and worst run."""
    moves = {
        run: [used(stored.get(what, []), runs[run].get(what, [])) for what in ("score", "numbers")]
        for run in names
    }
    worst = max(names, key=lambda run: max(moves[run]))
    score, numbers = (max(move[i] for move in moves.values()) for i in (0, 1))
    labels = stored.get("labels", [])
    flips = max(sum(map(int.__ne__, labels, runs[run].get("labels", []))) for run in names)
    by = worst if max(score, numbers) >= 0.01 else ""
    return f"{short(score)} | {short(numbers)} | {flips or ''} | {by}"


def short(number: float) -> str:
    """Return a share with two digits, or an empty string if it is negligible."""
    return "" if number < 0.01 else f"{number:.2g}" if number < 100 else f"{math.ceil(number):,}"


def main() -> None:
    """Print the table in Markdown."""
    if sys.argv[1:]:
        warnings.simplefilter("ignore")
        jitter = int(os.environ.get("JITTER", "0"))
        print(json.dumps({dtype: results(dtype, jitter) for dtype in ("float64", "float32")}))
        return
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_", "OMP_", "NPY_"))}
    runs = {}
    for name, variables in {"": {}, **MACHINES, **JITTERS}.items():
        command = [sys.executable, __file__, "once"]
        environment = {**kept, "OMP_NUM_THREADS": "2", **variables}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        runs[name] = json.loads(done.stdout)
    stored = runs.pop("")
    head = "score | numbers | labels | by"
    print(f"| model | data | machines: {head} | last bit: {head} |")
    print("|---" * 10 + "|")
    for name in stored["float64"]:
        for dtype in ("float64", "float32"):
            mine = {run: of[dtype][name] for run, of in runs.items()}
            machines, jitters = (
                row(stored[dtype][name], mine, list(names)) for names in (MACHINES, JITTERS)
            )
            print(f"| {name if dtype == 'float64' else ''} | {dtype} | {machines} | {jitters} |")


if __name__ == "__main__":
    main()
