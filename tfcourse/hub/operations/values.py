"""Make and check one file of values for Zero to JupyterHub: `make values`.

It is put together from kubernetes/values.yaml, the overlay of a size, the profiles of profiles.py,
and the site's own file. The chart is not here. What can be checked without it is: keys against our
files, traits against JupyterHub's and KubeSpawner's own classes, and numbers.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from jupyterhub.app import JupyterHub
from jupyterhub.auth import Authenticator
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.spawner import Spawner
from jupyterhub.traitlets import ByteSpecification
from kubespawner import KubeSpawner
from oauthenticator.oauth2 import OAuthenticator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from traitlets import HasTraits, TraitError, Type
from traitlets.config import Configurable
from traitlets.utils.importstring import import_item

from tfcourse.hub.settings import MIB
from tfcourse.hub.spawners import pods, profiles
from tfcourse.hub.spawners.profiles import Profile
from tfcourse.hub.state import ROOT

CHART = "4.4.0"  # the version that all of this is for
FOLDER = ROOT / "kubernetes"
SIZES = ("small", "class", "university")
FILES = ("values.yaml", *(f"{size}.yaml" for size in SIZES))
OURS = "course"  # the part of a site's file that is not the chart's
CHANGE_ME = "CHANGE-ME"  # what stands in the example for something that it cannot know

# In these the operator chooses the names. Those in hub.config are classes and their traits.
NAMED = {
    "hub.config",
    "hub.loadRoles",
    "hub.services",
    "ingress.annotations",
    "singleuser.extraEnv",
    "singleuser.storage.extraVolumeMounts",
    "singleuser.storage.extraVolumes",
}

# Traits of hub.config that what we make sets, and what would take a wall of the pod away.
WALLS = {
    "allow_privilege_escalation",
    "automount_service_account_token",
    "cmd",
    "container_security_context",
    "fs_gid",
    "gid",
    "pod_security_context",
    "privileged",
    "uid",
}

# Keys of the chart that our files name in a comment alone.
COMMENTED = {"singleuser.extraTolerations", "singleuser.storage.dynamic.storageClass"}

# What `course.profiles` can change of a profile, and the least that it can be. Amounts of memory
# are whole, in bytes: a server alone takes 100 MiB, and `memory: 3` would be three bytes.
LIMITS = {
    "memory": 256 * MIB,
    "guaranteed_memory": 256 * MIB,
    "shared_memory": MIB,
    "cpus": 0.01,
    "guaranteed_cpus": 0.01,
}

# What is allowed, and what is guaranteed of it, as the chart and Kubernetes call them.
PAIRS = (
    ("limit", "guarantee"),
    ("limits", "requests"),
    ("mem_limit", "mem_guarantee"),
    ("cpu_limit", "cpu_guarantee"),
)
AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[KMGT]i?|)")
UNITS = {"m": 1e-3, "": 1} | {
    f"{letter}{i}": 1024**power for power, letter in enumerate("KMGT", 1) for i in ("", "i")
}


class ValuesError(ValueError):
    """What cannot be, as a sentence for the operator."""


class Dumper(yaml.SafeDumper):
    """YAML without anchors: for reading."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write out what is there twice."""
        return True


def write(size: str, image: str, site: Path, output: Path | None) -> None:
    """Print the values, or write them to a file; exit with a sentence if something cannot be."""
    try:
        values = make(size, image, site)
    except ValuesError as fault:
        sys.exit(str(fault))
    text = (
        f"# For Zero to JupyterHub {CHART}: --size {size}, {site.name}. Made by\n"
        "# `make values`, so change what it is made from.\n"
        + yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    )
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
    else:
        print(text, end="")


def make(size: str, image: str, site: Path) -> dict[str, Any]:
    """Return the checked values for the chart.

    Raises
    ------
    ValuesError
        With a sentence that names the file and the key.
    """
    if size not in SIZES:
        raise ValuesError(
            f"There is no size {size!r}{nearest(size, SIZES)}; choose {' or '.join(SIZES)}."
        )
    if "/" not in image or ":" in image.rpartition("/")[2]:
        raise ValuesError(
            f"The image is {image!r}, but nodes fetch it from a registry: say where it is, and\n"
            "leave out the tags, like registry.example.org/tensorflow-course/1.0."
        )
    base = merge(read(FOLDER / "values.yaml"), read(FOLDER / f"{size}.yaml"))
    own = read(site)
    table, gpus = profile_table(site.name, own.get(OURS, {}))
    chart = {key: value for key, value in own.items() if key != OURS}
    for file in FILES:
        check_kinds(site.name, read(FOLDER / file), chart)
    check_secrets(site.name, chart)
    check_placeholders(site.name, chart)
    check_keys(site.name, chart)
    for name, part in ((f"{size}.yaml", base), (site.name, chart)):
        check_numbers(name, part)
    values = merge(base, chart)
    offered = [profile for profile in table if gpus or not profile.gpu]
    values = merge(
        values, generated(offered, image, values["singleuser"].get("extraTolerations") or [])
    )
    check_authenticator(site.name, values)
    check_database(site.name, values["hub"]["db"])
    check_config(site.name, values)
    check_numbers(site.name, values)
    return values


# --- Files


def read(path: Path) -> dict[str, Any]:
    """Return what is in a file of YAML."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValuesError(f"{path} cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise ValuesError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValuesError(f"{path} has to be a map of keys, like {FOLDER / 'site.example.yaml'}.")
    return content


def merge(first: Any, second: Any) -> Any:
    """Return the first with the second on top, as Helm does: maps key by key, lists as a whole."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    merged = {key: merge(value, second.get(key, value)) for key, value in first.items()}
    return {**merged, **{key: value for key, value in second.items() if key not in first}}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is no map, and the keys that lead to it."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and any(isinstance(value, Mapping) for value in tree):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}[{number}]")
    else:
        yield path, tree


def keys(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of each key, from the top on."""
    for key, value in tree.items():
        here = f"{path}.{key}" if path else str(key)
        yield here
        if isinstance(value, Mapping) and here not in NAMED:
            yield from keys(value, here)


# --- Profiles


def profile_table(name: str, course: Any) -> tuple[list[Profile], bool]:
    """Return the profiles with the site's limits, and whether there are GPUs."""
    if not isinstance(course, Mapping):
        raise ValuesError(f"{name}: {OURS} has to be a map of gpus and profiles.")
    for key in course:
        if key not in ("gpus", "profiles"):
            raise ValuesError(
                f"{name}: {OURS}.{key} does not exist{nearest(key, ('gpus', 'profiles'))}; "
                "there are gpus and profiles."
            )
    gpus = course.get("gpus", False)
    if not isinstance(gpus, bool):
        raise ValuesError(f"{name}: {OURS}.gpus is {gpus!r}, but it has to be true or false.")
    changes = course.get("profiles") or {}
    slugs = [profile.slug for profile in profiles.PROFILES]
    for slug in changes:
        if slug not in slugs:
            raise ValuesError(
                f"{name}: there is no profile {slug!r}{nearest(slug, slugs)}; "
                f"tfcourse/hub/spawners/profiles.py has {' and '.join(slugs)}."
            )
    table = [
        with_limits(name, profile, changes.get(profile.slug) or {}) for profile in profiles.PROFILES
    ]
    return table, gpus


def with_limits(name: str, profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """Return the profile with the site's limits."""
    here = f"{name}: {OURS}.profiles.{profile.slug}"
    if not isinstance(changes, Mapping):
        raise ValuesError(f"{here} is {changes!r}, but it has to be a map of {', '.join(LIMITS)}.")
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in LIMITS:
            raise ValuesError(
                f"{here}.{key} does not exist{nearest(key, LIMITS)}; there are {', '.join(LIMITS)}."
            )
        memory = isinstance(LIMITS[key], int)
        try:
            found[key] = ByteSpecification().validate(None, value) if memory else float(value)
        except (TraitError, TypeError, ValueError):
            found[key] = math.nan
        if not LIMITS[key] <= found[key] < math.inf:
            like = f"3G or 1500M, and not below {LIMITS[key] // MIB}M" if memory else "2 or 0.5"
            raise ValuesError(f"{here}.{key} is {value!r}, but it has to be like {like}.")
    changed = replace(profile, **found)
    for limit, guarantee in (("memory", "guaranteed_memory"), ("cpus", "guaranteed_cpus")):
        if getattr(changed, guarantee) > getattr(changed, limit):
            if guarantee in found:
                raise ValuesError(
                    f"{here}.{guarantee} is {changes[guarantee]!r}, more than {limit} allows."
                )
            # Only the limit was lowered.
            changed = replace(changed, **{guarantee: getattr(changed, limit)})
    return changed


def generated(table: list[Profile], image: str, tolerated: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what of the values comes from the profiles, and from what every pod is."""
    pod, first = pods.POD, table[0]
    default = override(first, image, tolerated)
    in_config = (
        "gid",
        "pod_security_context",
        "container_security_context",
        "automount_service_account_token",
    )
    return {
        "hub": {"config": {"KubeSpawner": {trait: pod[trait] for trait in in_config}}},
        "singleuser": {
            "image": {
                "name": image,
                "tag": first.tag,
                "pullPolicy": pod["image_pull_policy"],
            },
            "cmd": pod["cmd"],
            "uid": pod["uid"],
            "fsGid": pod["fs_gid"],
            "allowPrivilegeEscalation": pod["allow_privilege_escalation"],
            # What a placeholder keeps free, too.
            "memory": {"limit": default["mem_limit"], "guarantee": default["mem_guarantee"]},
            "cpu": {"limit": default["cpu_limit"], "guarantee": default["cpu_guarantee"]},
            # The chart has one for all profiles.
            "storage": {
                "extraVolumes": {"shm": pods.shared_memory(max(p.shared_memory for p in table))}
            },
            "profileList": [
                {
                    "slug": profile.slug,
                    "display_name": profile.name,
                    "description": profile.description,
                    "default": profile is first,
                    "kubespawner_override": override(profile, image, tolerated),
                }
                for profile in table
            ],
        },
    }


def override(profile: Profile, image: str, tolerated: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what KubeSpawner changes for the profile, on a spawner that may have had another one.

    There maps are merged, so that a GPU has to be taken away (None); lists are replaced.
    """
    traits = pods.traits_of(profile)
    return {
        "image": f"{image}:{profile.tag}",
        "mem_limit": megabytes(traits["mem_limit"]),
        "mem_guarantee": megabytes(traits["mem_guarantee"]),
        "cpu_limit": traits["cpu_limit"],
        "cpu_guarantee": traits["cpu_guarantee"],
        "extra_resource_limits": traits["extra_resource_limits"] or {pods.GPU: None},
        "tolerations": [*traits["tolerations"], *tolerated],
    }


def megabytes(size: int) -> str:
    """Return the size as KubeSpawner reads it: Helm would write the number as 3.221225472e+09."""
    return f"{size // MIB}M"


# --- Checks


def nearest(word: Any, known: Iterable[str]) -> str:
    """Return a question, if something known is nearly called so."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=0.7)
    return f" (did you mean {found[0]}?)" if found else ""


def known_keys() -> set[str]:
    """Return the keys of the chart that our files use."""
    found = {key for name in (*FILES, "site.example.yaml") for key in keys(read(FOLDER / name))}
    return {key for key in found if key.split(".")[0] != OURS} | COMMENTED


def check_keys(name: str, tree: Mapping[str, Any]) -> None:
    """See to it that there are no other keys than in our files: it may be a misspelling."""
    known = known_keys()
    made = set(keys(generated([profiles.PROFILES[0]], "", []))) - known
    for key in keys(tree):
        if key in made:
            raise ValuesError(
                f"{name}: {key} is made from tfcourse/hub/spawners/profiles.py; "
                f"limits are changed in {OURS}.profiles."
            )
        if key not in known:
            raise ValuesError(
                f"{name}: {key} is not a key that our files use{nearest(key, known)}. If it is "
                "one of the\nchart's, put it into a file of its own, for `helm --values`."
            )
    config = tree.get("hub", {}).get("config", {})
    for trait in sorted(WALLS & (config.get("KubeSpawner") or {}).keys()):
        raise ValuesError(
            f"{name}: hub.config.KubeSpawner.{trait} is a wall of each learner's pod: it is made "
            "from\ntfcourse/hub/spawners/pods.py."
        )


def check_secrets(name: str, tree: Mapping[str, Any]) -> None:
    """See to it that nothing secret is in the values, which are kept where others can read."""
    for path, value in leaves(tree):
        secret = re.search(r"(secret|password|token)$", path, re.I) and "existing" not in path
        if secret and isinstance(value, str):
            raise ValuesError(
                f"{name}: {path} is secret: it belongs into the Secret of hub.existingSecret\n"
                "(docs/kubernetes.md, Install)."
            )


def check_placeholders(name: str, tree: Mapping[str, Any]) -> None:
    """See to it that nothing is left of the example that holds for no cluster."""
    for path, value in leaves(tree):
        if value == CHANGE_ME:
            raise ValuesError(
                f"{name}: {path} is still {CHANGE_ME}; kubernetes/site.example.yaml says above it\n"
                "what belongs there."
            )


def check_kinds(name: str, base: Any, own: Any, path: str = "") -> None:
    """See to it that what is a map, a number or a switch in our files is one in the site's, too."""
    if isinstance(base, Mapping) and base:
        if not isinstance(own, Mapping):
            raise ValuesError(f"{name}: {path} is {own!r}, but it has to be a map of keys.")
        for key in base.keys() & own.keys():
            check_kinds(name, base[key], own[key], f"{path}.{key}" if path else str(key))
    for kind, called in ((bool, "true or false"), (int, "a whole number")):
        if type(base) is kind and type(own) is not kind:
            raise ValuesError(f"{name}: {path} is {own!r}, but it has to be {called}.")


def check_authenticator(name: str, values: Mapping[str, Any]) -> None:
    """See to it that not everybody comes in, and not nobody."""
    config = values["hub"]["config"]
    chosen = (config.get("JupyterHub") or {}).get("authenticator_class")
    if chosen in (None, "dummy") or str(chosen).endswith(".DummyAuthenticator"):
        raise ValuesError(
            f"{name}: hub.config.JupyterHub.authenticator_class is missing, or 'dummy', which\n"
            "lets everybody in. Say how people log in, as kubernetes/site.example.yaml does."
        )
    traits = [item for kind in config if "Auth" in kind for item in (config[kind] or {}).items()]
    if not any(value for trait, value in traits if trait.startswith("allow")):
        raise ValuesError(
            f"{name}: hub.config says of nobody that they may come in. Set allow_all: true beside\n"
            "your provider, as kubernetes/site.example.yaml does, or allowed_users."
        )


def check_database(name: str, database: Mapping[str, Any]) -> None:
    """See to it that accounts are kept: without an address the hub has them in its container."""
    kinds = ("sqlite-pvc", "postgres")
    if database["type"] not in kinds:
        raise ValuesError(
            f"{name}: hub.db.type is {database['type']!r}, but it has to be {' or '.join(kinds)}."
        )
    url = str(database.get("url", ""))
    with contextlib.suppress(ArgumentError):  # no address at all
        if make_url(url).password:
            raise ValuesError(
                f"{name}: hub.db.url has a password in it, which is secret: it belongs into the\n"
                "Secret of hub.existingSecret (docs/kubernetes.md, Install)."
            )
    if database["type"] == "postgres" and not url.startswith("postgresql"):
        raise ValuesError(
            f"{name}: hub.db.url is {url!r}, but this size keeps accounts in PostgreSQL:\n"
            "say where, like postgresql+psycopg2://hub@postgres.example.org:5432/hub."
        )


def check_config(name: str, values: Mapping[str, Any]) -> None:
    """See to it that hub.config and the profiles name classes and traits that exist."""
    config = values["hub"]["config"]
    chosen = str(config["JupyterHub"]["authenticator_class"])
    known = classes(chosen)
    for kind, traits in config.items():
        if kind not in known:
            # One that the chart's hub has, and we have not: it cannot be checked here.
            if chosen.endswith(f".{kind}"):
                continue
            raise ValuesError(
                f"{name}: hub.config.{kind} is no class of this hub{nearest(kind, known)}; "
                f"there are {', '.join(sorted(known))}."
            )
        check_traits(f"{name}: hub.config.{kind}", known[kind], traits or {})
    for profile in values["singleuser"]["profileList"]:
        where = f"{name}: the profile {profile['slug']}"
        check_traits(where, KubeSpawner, profile["kubespawner_override"])


def check_traits(where: str, kind: type[Configurable], traits: Mapping[str, Any]) -> None:
    """See to it that the class has such traits, of these kinds."""
    known = kind.class_traits(config=True)
    for trait, value in traits.items():
        if trait not in known:
            raise ValuesError(f"{where}.{trait} does not exist{nearest(trait, known)}.")
        # None stands for the default. A class may be one that the chart's hub has, and we have not.
        if value is None or isinstance(known[trait], Type) or not hasattr(known[trait], "validate"):
            continue
        try:
            known[trait].validate(HasTraits(), value)
        except TraitError:
            wanted = known[trait].info()
            raise ValuesError(f"{where}.{trait} is {value!r}, but it has to be {wanted}.") from None


def classes(authenticator: str) -> dict[str, type[Configurable]]:
    """Return the classes that can be set up, with those of the authenticator, by their names."""
    found = [JupyterHub, ConfigurableHTTPProxy, Spawner, KubeSpawner, Authenticator, OAuthenticator]
    points = entry_points(group="jupyterhub.authenticators", name=authenticator)
    try:
        chosen = next(iter(points)).load() if points else import_item(authenticator)
    except ImportError:
        chosen = Authenticator
    found += [kind for kind in chosen.mro() if issubclass(kind, Configurable)]
    return {kind.__name__: kind for kind in found}


def check_numbers(name: str, tree: Mapping[str, Any]) -> None:
    """See to it that amounts are some, none negative, and no more guaranteed than allowed."""
    for path, value in leaves(tree):
        negative = re.fullmatch(r"-[0-9].*", str(value))
        # These are relative to others' priorities.
        if negative and not path.startswith("scheduling.podPriority."):
            raise ValuesError(f"{name}: {path} is {value!r}, but it cannot be negative.")
        amount = path.rpartition(".")[2] in ("capacity", "cpu", "memory", "storage")
        if amount and not AMOUNT.fullmatch(str(value)):
            raise ValuesError(f"{name}: {path} is {value!r}, but it has to be like 5Gi or 500m.")
    flat = dict(leaves(tree))
    for path, value in flat.items():
        for limit, guarantee in PAIRS:
            pattern = rf"(^|\.){guarantee}(\.|$)"
            allowed = flat.get(re.sub(pattern, rf"\1{limit}\2", path))
            if (
                re.search(pattern, path)
                and allowed is not None
                and quantity(value) > quantity(allowed)
            ):
                raise ValuesError(
                    f"{name}: {path} is {value!r}, which is more than the limit, {allowed!r}."
                )


def quantity(value: Any) -> float:
    """Return an amount as a number, 0 if it is none."""
    found = AMOUNT.fullmatch(str(value))
    return float(found[1]) * UNITS[found[2]] if found else 0
