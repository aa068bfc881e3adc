"""Describe library calls: which train, which are random, and which kinds of numbers they return.

A name is a dotted path from a library's root, such as `sklearn.svm.SVC`. `()` stands for the value
that a call returns, so `sklearn.svm.SVC()` is an object, and `sklearn.svm.SVC().fit` is one of its
methods.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from nbval_tolerance.compare import Phase


def listed(text: str) -> frozenset[str]:
    """Return the set of words in a text."""
    return frozenset(text.split())


# Libraries whose models are trained step by step in float32, which amplifies rounding errors.
DEEP = listed(
    "autokeras catalyst chainer deepchem detectron2 diffusers equinox fastai flax gpytorch "
    "haiku ignite jax keras keras_cv keras_hub keras_nlp keras_tuner lightning mxnet numpyro "
    "optax paddle peft pyro pytorch_lightning sb3_contrib scikeras sentence_transformers skorch "
    "stable_baselines3 tensorflow tensorflow_hub tensorflow_probability tflearn timm torch "
    "torch_geometric torchaudio torchtext torchvision transformers trl ultralytics umap"
)
# Libraries whose models depend only on their data, on rounding, and on when a solver stops.
CLASSICAL = listed(
    "arch catboost cvxpy hmmlearn imblearn lifelines lightgbm linearmodels lmfit mlxtend numpy "
    "pmdarima prophet scipy sklearn statsforecast statsmodels xgboost"
)
# Other libraries whose calls are recognized by name.
OTHERS = listed(
    "collections copy datetime emcee functools gensim itertools math matplotlib os pandas pymc "
    "multiprocessing pymc3 random secrets seaborn statistics tempfile threading time timeit "
    "torchmetrics uuid"
)

# On float32 data, scikit-learn's MLPs and t-SNE amplify rounding as deep networks do (measured by
# tests/measure_estimators.py).
CHAOTIC = re.compile(r"sklearn\.(neural_network\.MLP\w+|manifold\.TSNE)\(\)\Z")
# These estimators only compare, count and scale, so their results stay within the tolerance that
# applies before training.
EXACT = re.compile(
    r"(Scaler|Normalizer|Binarizer|Encoder|Imputer|Discretizer|Vectorizer|FunctionTransformer"
    r"|PolynomialFeatures|SplineTransformer|SelectKBest|SelectPercentile|VarianceThreshold"
    r"|Neighbors\w*|NearestCentroid|Dummy\w+|DecisionTree\w+|ExtraTree\w+|RandomForest\w+"
    r"|IsolationForest|DBSCAN|AgglomerativeClustering|BaseEstimator|\w+Mixin)\(\)\Z"
)
# These estimators wrap others, and are classified by the estimators that they contain.
WRAPPER = re.compile(
    r"(\w*[Pp]ipeline|\w+SearchCV|ColumnTransformer|make_column_transformer|FeatureUnion|Bagging\w+"
    r"|Voting\w+|Stacking\w+|OneVs\w+|MultiOutput\w+|Calibrated\w+|RFE(CV)?|clone"
    r"|TransformedTargetRegressor)\(\)\Z"
)

# Methods that fit a model in any library.
FITS = listed("fit partial_fit fit_transform fit_predict fit_resample fit_regularized")
# Methods that train a network.
TRAINS = listed("apply_gradients fine_tune fit_generator fit_one_cycle lr_find train_on_batch")
# Optimizer methods, and patterns for optimizer classes and for variables that hold optimizers.
STEPS = {"step", "apply", "minimize"}
OPTIMIZER = re.compile(
    r"(torch\.optim\.(?!lr_scheduler)|keras\.optimizers|tensorflow\..*optimizers?)"
)
OPTIMIZERS = re.compile(r"optim|\bopt\b|\bopt_|_opt\b|\bsgd\b|\badam", re.I)
# Variable names on which `.train()` runs training, rather than only switching to training mode.
TRAINERS = re.compile(r"trainer|learner|tuner|agent", re.I)
# Names of training functions in unknown modules, such as `train_one_epoch`, but not
# `train_test_split`.
TRAINING_NAME = re.compile(
    r"_*(train|fit|training|run_training)(_?(a|one|single|full|my|the|and|multi|step|epochs?|loop"
    r"|model|net|network|batch|classifier|evaluate|eval|test|validate|fn))*(_\w*(fn|step))?\Z"
)
# Library functions and methods that train a model, and those that fit a model or function passed as
# an argument.
TRAINING_CALL = re.compile(
    r"(ignite|pyro|numpyro)\..*\(\)\.(run|step)\Z|(lightning|pytorch_lightning)\..*\(\)\.tune\Z"
    r"|(transformers|trl|sentence_transformers|ultralytics|detectron2)\..*\(\)\.train\Z"
    r"|(stable_baselines3|sb3_contrib)\..*\(\)\.learn\Z|keras_tuner\..*\(\)\.search\Z"
    r"|flax\.nnx\.Optimizer\(\)\.update\Z|optax\.apply_updates\Z"
    r"|gensim\..*(Word2Vec|Doc2Vec|FastText)\Z"
    r"|pymc3?\.(sample|fit)\Z|emcee\..*\.run_mcmc\Z"
)
FITTING_CALL = re.compile(
    r"scipy\.optimize\.(curve_fit|minimize\w*|least_squares|differential_evolution|dual_annealing"
    r"|basinhopping|root|fsolve|fmin\w*|leastsq)\Z|numpy\.polyfit\Z"
    r"|(xgboost|lightgbm|catboost)\.(train|cv)\Z"
    r"|sklearn\.model_selection\.(cross_val_\w+|cross_validate|learning_curve|validation_curve"
    r"|permutation_test_score)\Z|sklearn\..*\.(k_means|lasso_path|enet_path)\Z"
)
# Names of functions and methods that compute a gradient, or that change a variable in place.
GRADIENT = re.compile(r"\w*grad\w*\Z|vjp\Z")
GRADIENT_METHOD = re.compile(r"(manual_)?backward\Z|gradient\Z|grad\Z")
UPDATES = listed("assign assign_add assign_sub add_ copy_ map sub_ tree_map")

# Calls that return only counts, texts or types, and no numbers that vary between machines.
PLAIN = listed(
    "argmax argmin argsort bincount bool classification_report columns confusion_matrix count "
    "count_params device dir dtype enumerate format get_params hasattr id index int isinstance "
    "join keys len lower name names ndim nunique range replace repr shape size split str strip "
    "summary title type unique upper value_counts"
)
# Calls that return numbers of the same kind as their input.
PASSES = listed(
    "DataFrame Series abs absolute amax amin around array asarray astype average compute "
    "concatenate copy cpu cumsum deepcopy describe detach display fabs flatten float head item "
    "list max maximum mean median min minimum nanmean nanmedian nanstd negative numpy quantile "
    "percentile ravel reshape result reversed round sort_values sorted sqrt squeeze stack std "
    "sum tail tensor to_numpy tolist tuple values"
)
# Functions and methods that call a function passed as an argument.
APPLIES = listed(
    "Parallel apply fori_loop gather imap interact interactive map optimize run scan starmap "
    "submit timeit while_loop"
)
# Calls that return different values in each run: times, durations, and ids of processes and
# threads.
OF_THE_RUN = {
    "duration": re.compile(
        r"time\.(time|perf_counter|monotonic|process_time|thread_time)(_ns)?\Z"
        r"|timeit\.(default_timer|timeit)\Z"
    ),
    "id": re.compile(r"os\.getp?pid\Z|threading\.get_(ident|native_id)\Z"),
}
# Attributes that contain parts of an estimator.
PARTS = listed(
    "best_estimator_ estimator estimator_ estimators_ model named_estimators_ named_steps steps"
)

# Maps kinds to the words in identifiers that indicate them. The first kind that matches is used.
KINDS = {
    # These words name settings and log densities, which are not a model's results.
    "": r"learning rate|lr|momentum|epsilon|alpha|test size|train size|thresholds?|score samples|"
    r"log (probs?|probability|probabilities|likelihood)",
    "percentage": r"percent(age)?|pct",
    "loss": r"loss(es)?|cross ?entropy|bce|r?mse|mae|nll|mape|deviance|"
    r"(squared|absolute|percentage|pinball) (log )?error|(mean|max) error",
    "accuracy": r"accurac(y|ies)|accs?|precision|recall|f1|fbeta|roc|auc|iou|specificity|jaccard|"
    r"error rate|misclassification|hamming",
    "probability": r"r2|r ?squared|explained variance|scores?|prob(a|s|ability|abilities)?|"
    r"confidences?|softmax|sigmoid|kappa|silhouette|corrcoef",
}
PATTERNS = [(kind, re.compile(rf"(?<![a-z])(?:{words})(?![a-z])")) for kind, words in KINDS.items()]
WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")
VERB = re.compile(r"_*(add|draw|log|plot|print|save|set|show|write)_|\w*_curve\Z")  # no number
CLASSIFIER = re.compile(
    r"Classifi|LogisticRegression|SVC\b|NB\b|Perceptron\b|Discriminant|LabelPropagation|LabelSpread"
)
REGRESSOR = re.compile(
    r"Regress|Ridge|Lass|ElasticNet|\bLars|SVR\b|MatchingPursuit|TheilSen|RANSAC|PLS|ARD"
)


def canonical(name: str) -> str:
    """Return a dotted name in canonical form: Keras, for example, has several import names."""
    return re.sub(r"\A(tensorflow\.(python\.)?keras|tf_keras)\b", "keras", name)


def is_known(root: str) -> bool:
    """Return whether a library's calls are recognized by name."""
    return root in DEEP or root in CLASSICAL or root in OTHERS


def kind_of(identifier: str) -> str:
    """Return the kind of number that an identifier indicates, or an empty string.

    >>> kind_of("val_acc"), kind_of("CrossEntropyLoss"), kind_of("weights"), kind_of("plot_loss")
    ('accuracy', 'loss', '', '')
    """
    if VERB.match(identifier):
        return ""
    words = WORDS.sub(" ", identifier).lower()
    return next((kind for kind, pattern in PATTERNS if pattern.search(words)), "")


def kind_of_the_run(name: str) -> str:
    """Return `duration` or `id` if the named function returns one, or else an empty string."""
    return next((kind for kind, calls in OF_THE_RUN.items() if calls.match(name)), "")


def score_kind(names: Set[str]) -> str:
    """Return the kind of number that the estimators' `score()` returns, or an empty string.

    A score that may be accuracy or R² is treated as R², whose tolerance is wider.
    """
    classes = [name for name in names if name.endswith("()")]
    classifiers = [one for one in classes if CLASSIFIER.search(one)]
    regressors = [one for one in set(classes) - set(classifiers) if REGRESSOR.search(one)]
    if classifiers and not regressors:
        return "accuracy"
    either = regressors or all(WRAPPER.search(one) for one in classes)
    return "probability" if either else ""  # the score may be a likelihood or a distance


def effort(names: Set[str]) -> Phase | None:
    """Return the phase that fitting these objects implies, or None if no object is known."""
    phases = set()
    for name in names:
        root = name.partition(".")[0]
        if (
            root in OTHERS
            or ".preprocessing." in name
            or EXACT.search(name)
            or WRAPPER.search(name)
        ):
            phases.add(Phase.UNTRAINED)
        elif root in DEEP or CHAOTIC.match(name):
            phases.add(Phase.FIT)
        elif root in CLASSICAL:
            phases.add(Phase.FITTED)
    order = (Phase.FIT, Phase.FITTED, Phase.UNTRAINED)
    return next((phase for phase in order if phase in phases), None)


@dataclass(frozen=True)
class Chance:
    """Calls whose results differ from run to run.

    Attributes
    ----------
    calls
        A pattern for the names of the calls.
    seed
        The code that seeds the calls. Empty if they cannot be seeded.
    streams
        The generators from which the calls draw. Empty if the calls do not share a generator.
    keyword
        The argument that seeds one call.
    positional
        Whether the seed may be the first positional argument.
    when
        A pattern that an `argument=value`, an argument, an imported library or the call's name
        must match. Empty if there is no such condition.
    clock
        Whether the calls read the clock.
    most
        The maximum number of arguments. With more arguments, the result is the same in each run.
    """

    calls: re.Pattern
    seed: str
    streams: frozenset[str] = frozenset()
    keyword: str = ""
    positional: bool = False
    when: str = ""
    clock: bool = False
    most: int | None = None


def chance(
    calls: str, seed: str, streams: str = "", keyword: str = "", when: str = "", **more: Any
) -> Chance:
    """Return a `Chance` for the names that match `calls`."""
    return Chance(
        re.compile(rf"(?:{calls})\Z"), seed, frozenset(streams.split()), keyword, when=when, **more
    )


SKLEARN = r"(sklearn|imblearn)\.(\w+\.)*"
CHANCES = (
    chance(
        r"numpy\.random\.(?!seed|default_rng|get_state|set_state|bit_generator)[a-z]\w*",
        "np.random.seed(0)",
        "numpy",
    ),
    chance(
        r"numpy\.random\.(default_rng|RandomState|SeedSequence|PCG64|MT19937|Philox)",
        "np.random.default_rng(0)",
        keyword="seed",
        positional=True,
    ),
    chance(r"random\.(?!seed|getstate|setstate)[a-z]\w*", "random.seed(0)", "random"),
    chance(r"random\.Random", "random.Random(0)", keyword="x", positional=True),
    chance(
        r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|poisson)(_like)?"
        r"|torch\.nn\.init\.\w*(normal|uniform|orthogonal|sparse)\w*|torch\.distributions\..*\.r?sample"
        r"|torch\.nn\.(\w+\.)*(Linear|Bilinear|Conv\w+|Embedding\w*|(LSTM|GRU|RNN)(Cell)?|Transformer\w*"
        r"|MultiheadAttention)|torch\.utils\.data\.random_split",
        "torch.manual_seed(0)",
        "torch",
        "generator",
    ),
    chance(
        r"torch\.utils\.data\.(\w+\.)*DataLoader",
        "torch.manual_seed(0)",
        "torch",
        "generator",
        r"shuffle=(?!False)",
    ),
    chance(
        r"tensorflow\.random\.(?!set_seed|Generator|stateless|create_rng)\w+|tensorflow\.data\..*\.shuffle",
        "tf.random.set_seed(0)",
        "tensorflow",
        "seed",
    ),
    chance(r"\?\.shuffle", "tf.random.set_seed(0)", "tensorflow", "seed", r"tensorflow\Z"),
    chance(
        r"keras\.layers\.(\w+\.)*(\w*Dense|\w*Conv\w+|Embedding|LSTM|GRU|SimpleRNN|\w+Cell|\w*Dropout\w*"
        r"|MultiHeadAttention|GaussianNoise|Random\w+)|keras\.random\.\w+|keras\.(?!preprocessing|legacy).*\(\)\.fit",
        "keras.utils.set_random_seed(0)",
        "keras",
    ),
    chance(
        r"keras\.(\w+\.)*\w+_dataset_from_directory",
        "seed=0",
        "",
        "seed",
        r"(?!shuffle=False)keras",
    ),
    chance(
        SKLEARN
        + r"(train_test_split|shuffle|resample|permutation_importance|permutation_test_score"
        r"|make_(blobs|classification|regression|moons|circles|s_curve|swiss_roll|friedman\d|hastie_10_2"
        r"|gaussian_quantiles|multilabel_classification|sparse_\w+|low_rank_matrix|spd_matrix)"
        r"|\w*ShuffleSplit|Repeated\w*KFold|\w*RandomizedSearchCV|\w*RandomProjection|RandomTreesEmbedding"
        r"|\w*(Forest|ExtraTree|DecisionTree|Bagging|SGD|MLP|Perceptron|PassiveAggressive|AdaBoost"
        r"|KMeans|RandomOver|RandomUnder|SMOTE|GaussianMixture)\w*|GradientBoosting\w+|BernoulliRBM|TSNE"
        r"|FastICA|LatentDirichletAllocation|MiniBatch\w+|SpectralClustering|RBFSampler|Nystroem|MDS"
        r"|TruncatedSVD|RANSACRegressor|LinearSVC)",
        "random_state=0",
        "numpy",
        "random_state",
    ),
    chance(
        SKLEARN + r"(\w*KFold|learning_curve)",
        "random_state=0",
        "numpy",
        "random_state",
        r"shuffle=(?!False)",
    ),
    chance(
        SKLEARN + r"(LogisticRegression\w*|Ridge\w*|SVC|PCA|Lasso|ElasticNet|DummyClassifier)",
        "random_state=0",
        "numpy",
        "random_state",
        r"solver='(sag|saga|liblinear)'|probability=True|svd_solver='(randomized|arpack)'"
        r"|selection='random'|strategy='(stratified|uniform)'",
    ),
    chance(r"umap\..*UMAP", "random_state=0", "", "random_state"),
    chance(r"scipy\.stats\..*rvs", "random_state=0", "numpy", "random_state"),
    chance(r"(pandas\..*|\?)\.sample", "random_state=0", "numpy", "random_state", r"pandas"),
    # Error bars in seaborn's plots come from resampling, which only the `seed` argument can seed.
    chance(r"seaborn\.(bar|line|point|reg|lm)plot", "seed=0", "", "seed"),
    chance(
        r"uuid\.uuid[14]|os\.u?random|secrets\.\w+|random\.SystemRandom|id"
        r"|tempfile\.(mk\w+|\w*Temporary\w+)",
        "",
    ),
    chance(
        r"time\.(time|perf_counter|monotonic|process_time|thread_time|clock_gettime)(_ns)?"
        r"|timeit\.\w+|os\.times|datetime\.(datetime\.|date\.)?(now|today|utcnow)"
        r"|pandas\.(Timestamp|Period)\.(now|today|utcnow)|tensorflow\.timestamp",
        "",
        clock=True,
    ),
    # If called without a time argument, these functions use the current time.
    chance(r"time\.(localtime|gmtime|ctime|asctime)", "", clock=True, most=0),
    chance(r"time\.strftime", "", clock=True, most=1),
    chance(
        r"pandas\.(Timestamp|to_datetime|Period)|numpy\.datetime64",
        "",
        when="['\"](now|today)['\"]",
        clock=True,
    ),
)
# Calls that seed generators. Keras 3 draws its seeds from Python's `random` module.
STREAMS = frozenset({"numpy", "random", "torch", "tensorflow", "keras"})
SEEDS = {
    "numpy.random.seed": {"numpy"},
    "random.seed": {"random", "keras"},
    "torch.manual_seed": {"torch"},
    "torch.random.manual_seed": {"torch"},
    "tensorflow.random.set_seed": {"tensorflow"},
    "keras.utils.set_random_seed": STREAMS,
    "lightning.seed_everything": STREAMS,
    "lightning.pytorch.seed_everything": STREAMS,
    "pytorch_lightning.seed_everything": STREAMS,
    "transformers.set_seed": STREAMS,
}
