"""Make and check one file of values for Zero to JupyterHub: `make values`.

The values come from kubernetes/values.yaml, the overlay of a size, the profiles in profiles.py and
the site's own file. The chart's own schema checks keys and types; Helm applies it (`--chart`, or
each `helm upgrade`). This module checks what the schema cannot see: secrets, the pods' isolation,
who may log in, traits of JupyterHub's classes, and numbers that contradict each other.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import sys
import tempfile
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

from tfcourse.hub import settings
from tfcourse.hub.settings import MIB
from tfcourse.hub.spawners import pods, profiles
from tfcourse.hub.spawners.profiles import Profile
from tfcourse.hub.state import ROOT

CHART = "4.4.0"  # the version that all of this is for
FOLDER = ROOT / "kubernetes"
SIZES = ("small", "class", "university")
FILES = ("values.yaml", *(f"{size}.yaml" for size in SIZES))
OURS = "course"  # the part of a site's file that is not the chart's
CHANGE_ME = "CHANGE-ME"  # what the example says where it cannot know the answer
STATE = "/srv/jupyterhub"  # the folder of the chart's hub that outlives it

# Traits that our values set. Other values in hub.config would weaken the isolation of every pod.
PROTECTED = {
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

# What `course.profiles` can change in a profile, and the smallest value of each. Memory is in bytes
# (integers): a server alone takes 100 MiB, and `memory: 3` would be three bytes.
LIMITS = {
    "memory": 256 * MIB,
    "guaranteed_memory": 256 * MIB,
    "shared_memory": MIB,
    "cpus": 0.01,
    "guaranteed_cpus": 0.01,
}

# A limit and its guarantee, as the chart and Kubernetes call them.
PAIRS = (
    ("limit", "guarantee"),
    ("limits", "requests"),
    ("mem_limit", "mem_guarantee"),
    ("cpu_limit", "cpu_guarantee"),
)
AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[KMGT]i?|)")
PARTS = 100_000  # keys and entries that a file may have
UNITS = {"m": 1e-3, "": 1} | {
    f"{letter}{i}": 1024**power for power, letter in enumerate("KMGT", 1) for i in ("", "i")
}


class ValuesError(ValueError):
    """Something in the values is wrong; the text is a message for the operator."""


class Dumper(yaml.SafeDumper):
    """YAML without anchors, which is easier to read."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out in full."""
        return True


def write(size: str, image: str, site: Path, output: Path | None, chart: str = "") -> None:
    """Print the values or write them to a file; exit with a message if something is wrong.

    If `chart` is not empty, Helm first checks the values with that chart's schema and templates.
    """
    try:
        values = make(size, image, site)
    except ValuesError as fault:
        sys.exit(str(fault))
    text = (
        f"# For Zero to JupyterHub {CHART}: --size {size}, {site.name}. Made by `make values`:\n"
        "# edit the files that it is made from instead.\n"
        + yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    )
    if chart:
        check_with_helm(text, chart)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
    else:
        print(text, end="")


def check_with_helm(text: str, chart: str) -> None:
    """Have Helm apply the chart's schema and templates; exit with its message if it refuses."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        command = ["helm", "template", "course", chart, "--values", file.name]
        if not Path(chart).exists():
            command += ["--version", CHART]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"Helm refuses the values for the chart {chart}:\n{run.stderr.strip()}")


def make(size: str, image: str, site: Path) -> dict[str, Any]:
    """Return the checked values for the chart.

    Raises
    ------
    ValuesError
        With a message that names the file and the key.
    """
    if size not in SIZES:
        raise ValuesError(
            f"There is no size {size!r}{nearest(size, SIZES)}; choose {' or '.join(SIZES)}."
        )
    if "/" not in image or ":" in image.rpartition("/")[2]:
        raise ValuesError(
            f"The image is {image!r}, but nodes fetch it from a registry. Give its address there,\n"
            "without a tag, such as registry.example.org/tensorflow-course/1.0."
        )
    base = merge(read(FOLDER / "values.yaml"), read(FOLDER / f"{size}.yaml"))
    own = read(site)
    course = own.get(OURS, {})
    check_course(site.name, course)
    chart = {key: value for key, value in own.items() if key != OURS}
    for file in FILES:
        check_kinds(site.name, read(FOLDER / file), chart)
    check_secrets(site.name, chart)
    check_placeholders(site.name, chart)
    for name, part in ((f"{size}.yaml", base), (site.name, chart)):
        check_numbers(name, part)
    values = merge(base, chart)
    made = generated(course, values, image, site.name)
    check_keys(site.name, chart, made)
    values = merge(values, made)
    check_course_hub(site.name, values, course.get("hub", False))
    check_authenticator(site.name, values, course.get("hub", False))
    check_database(site.name, values["hub"]["db"])
    check_config(site.name, values)
    check_numbers(site.name, values)
    return values


# --- Files


def read(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValuesError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValuesError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValuesError(f"{path} has to be a map of keys, like {FOLDER / 'site.example.yaml'}.")
    check_finite(path, content)
    return content


def check_finite(path: Path, content: Any) -> None:
    """Raise ValuesError if a key is not text, or if aliases make endless or enormous content."""
    left, parts = [content], 0
    while left:
        part = left.pop()
        parts += 1
        if parts > PARTS:
            raise ValuesError(f"{path} is too large, or one of its aliases (*) refers to itself.")
        if isinstance(part, Mapping):
            for odd in (key for key in part if not isinstance(key, str)):
                raise ValuesError(f"{path}: the key {odd!r} has to be text: put it in quotes.")
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)


def merge(first: Any, second: Any) -> Any:
    """Return the first with the second on top, as Helm does: maps key by key, lists as a whole."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    merged = {key: merge(value, second.get(key, value)) for key, value in first.items()}
    return {**merged, **{key: value for key, value in second.items() if key not in first}}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is not a map, with the path of keys to it."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and any(isinstance(value, Mapping) for value in tree):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}[{number}]")
    else:
        yield path, tree


def ends(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of keys to each value that is not a map; a list counts as one value."""
    for key, value in tree.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from ends(value, here)
        else:
            yield here


# --- What is made for the site


def check_course(name: str, course: Any) -> None:
    """Check the part of the site's file that is not the chart's."""
    if not isinstance(course, Mapping):
        raise ValuesError(f"{name}: {OURS} has to be a map of gpus, hub and profiles.")
    for key in course:
        if key not in ("gpus", "hub", "profiles"):
            raise ValuesError(
                f"{name}: {OURS}.{key} does not exist{nearest(key, ('gpus', 'hub', 'profiles'))}; "
                "there are gpus, hub and profiles."
            )
    for key in ("gpus", "hub"):
        if not isinstance(course.get(key, False), bool):
            raise ValuesError(
                f"{name}: {OURS}.{key} is {course[key]!r}, but it has to be true or false."
            )


def profile_table(name: str, course: Mapping[str, Any]) -> list[Profile]:
    """Return the profiles that the site offers, with its limits."""
    changes = course.get("profiles") or {}
    slugs = [profile.slug for profile in profiles.PROFILES]
    for slug in changes:
        if slug not in slugs:
            raise ValuesError(
                f"{name}: there is no profile {slug!r}{nearest(slug, slugs)}; "
                f"tfcourse/hub/spawners/profiles.py has {' and '.join(slugs)}."
            )
    return [
        site_limits(name, profile, changes.get(profile.slug) or {})
        for profile in profiles.PROFILES
        if course.get("gpus") or not profile.gpu
    ]


def site_limits(name: str, profile: Profile, changes: Mapping[str, Any]) -> Profile:
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
                    f"{here}.{guarantee} is {changes[guarantee]!r}, more than the limit ({limit})."
                )
            # Only the limit was lowered.
            changed = replace(changed, **{guarantee: getattr(changed, limit)})
    return changed


def generated(
    course: Mapping[str, Any], values: Mapping[str, Any], image: str, name: str
) -> dict[str, Any]:
    """Return the values that come from the profiles and from the traits of every pod."""
    table = profile_table(name, course)
    tolerated = values["singleuser"].get("extraTolerations") or []
    pod, first = pods.POD, table[0]
    default = override(first, image, tolerated)
    in_config = (
        "gid",
        "pod_security_context",
        "container_security_context",
        "automount_service_account_token",
    )
    return {
        "hub": {
            "config": {"KubeSpawner": {trait: pod[trait] for trait in in_config}},
            **(course_hub(values, image) if course.get("hub") else {}),
        },
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
            # A placeholder reserves as much.
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


def course_hub(values: Mapping[str, Any], image: str) -> dict[str, Any]:
    """Return what makes the chart's hub run our image, and what our image has to know."""
    cull = values["cull"]
    return {
        "image": {"name": image, "tag": "hub"},
        "extraEnv": {
            settings.STATE.name: STATE,
            settings.HOST.name: values["ingress"]["hosts"][0],
            settings.IDLE_MINUTES.name: f"{cull['timeout'] / 60 if cull['enabled'] else 0:g}",
        },
    }


def override(profile: Profile, image: str, tolerated: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the traits that KubeSpawner changes for the profile.

    The spawner may have had another profile before. KubeSpawner replaces lists but merges maps, so
    a GPU has to be removed explicitly (None).
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
    """Return the size as text, because Helm would write the number as 3.221225472e+09."""
    return f"{size // MIB}M"


# --- Checks


def nearest(word: Any, known: Iterable[str]) -> str:
    """Return a question if a known word is similar, else an empty string."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=0.7)
    return f" (did you mean {found[0]}?)" if found else ""


def check_keys(name: str, tree: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Refuse keys that `make values` itself sets."""
    for key in sorted({*ends(tree)} & {*ends(made)}):
        raise ValuesError(
            f"{name}: {key} is set by `make values`. Change limits in {OURS}.profiles."
        )
    config = tree.get("hub", {}).get("config", {})
    for trait in sorted(PROTECTED & (config.get("KubeSpawner") or {}).keys()):
        raise ValuesError(
            f"{name}: hub.config.KubeSpawner.{trait} isolates learners' pods. It comes "
            "from\ntfcourse/hub/spawners/pods.py."
        )


def check_secrets(name: str, tree: Mapping[str, Any]) -> None:
    """Refuse secrets in the values, which are kept where others can read them."""
    for path, value in leaves(tree):
        ours = settings.TABLE.get(path.removeprefix("hub.extraEnv."))
        named = re.search(r"(secret|password|token)$", path, re.I) and "existing" not in path
        if isinstance(value, str) and (named or (ours and ours.secret)):
            raise ValuesError(
                f"{name}: {path} is secret: put it in the Secret that hub.existingSecret names\n"
                "(docs/kubernetes.md, Install)."
            )


def check_placeholders(name: str, tree: Mapping[str, Any]) -> None:
    """Refuse placeholders of the example that the site has not filled in."""
    for path, value in leaves(tree):
        if value == CHANGE_ME:
            raise ValuesError(
                f"{name}: {path} is still {CHANGE_ME}; the comment above it in\n"
                "kubernetes/site.example.yaml says what belongs there."
            )


def check_kinds(name: str, base: Any, own: Any, path: str = "") -> None:
    """Check that each of our maps, numbers and switches has the same kind in the site's file."""
    if isinstance(base, Mapping) and base:
        if not isinstance(own, Mapping):
            raise ValuesError(f"{name}: {path} is {own!r}, but it has to be a map of keys.")
        for key in base.keys() & own.keys():
            check_kinds(name, base[key], own[key], f"{path}.{key}" if path else str(key))
    for kind, called in ((bool, "true or false"), (int, "a whole number")):
        if type(base) is kind and type(own) is not kind:
            raise ValuesError(f"{name}: {path} is {own!r}, but it has to be {called}.")


def check_course_hub(name: str, values: Mapping[str, Any], course_hub: bool) -> None:
    """Check the settings of our hub image in hub.extraEnv."""
    for key, value in (values["hub"].get("extraEnv") or {}).items():
        here = f"{name}: hub.extraEnv.{key}"
        if not key.startswith("COURSE_"):
            continue
        known = [s.name for s in settings.TABLE.values() if "chart" in s.given_to.split()]
        if key not in known:
            raise ValuesError(f"{here} is not a setting for a cluster{nearest(key, known)}.")
        if not course_hub:
            raise ValuesError(f"{here} is for our hub image: set {OURS}.hub to true.")
        if isinstance(value, Mapping):  # it comes from a Secret
            continue
        try:
            settings.TABLE[key].parse(str(value))
        except ValueError as error:
            raise ValuesError(f"{here} is {value!r}, but it {error}.") from None


def check_authenticator(name: str, values: Mapping[str, Any], course_hub: bool) -> None:
    """Check that neither everybody nor nobody can log in."""
    config = values["hub"]["config"]
    chosen = (config.get("JupyterHub") or {}).get("authenticator_class")
    if course_hub and chosen is None:
        return  # our image has accounts of its own
    made = {s.name for s in (settings.STATE, settings.HOST, settings.IDLE_MINUTES)}
    for key in values["hub"].get("extraEnv") or {}:
        if key.startswith("COURSE_") and key not in made:
            raise ValuesError(
                f"{name}: hub.extraEnv.{key} is for the course's own accounts, but\n"
                "hub.config.JupyterHub.authenticator_class names others: remove one of the two."
            )
    if chosen in (None, "dummy") or str(chosen).endswith(".DummyAuthenticator"):
        raise ValuesError(
            f"{name}: hub.config.JupyterHub.authenticator_class is missing, or it is 'dummy',\n"
            "which lets everybody in. Say how people log in, as kubernetes/site.example.yaml does."
        )
    traits = [item for kind in config if "Auth" in kind for item in (config[kind] or {}).items()]
    if not any(value for trait, value in traits if trait.startswith("allow")):
        raise ValuesError(
            f"{name}: hub.config lets nobody in. Set allow_all: true beside your provider, as\n"
            "kubernetes/site.example.yaml does, or allowed_users."
        )


def check_database(name: str, database: Mapping[str, Any]) -> None:
    """Check that accounts are kept: without an address, they would be in the hub's container."""
    kinds = ("sqlite-pvc", "postgres")
    if database["type"] not in kinds:
        raise ValuesError(
            f"{name}: hub.db.type is {database['type']!r}, but it has to be {' or '.join(kinds)}."
        )
    url = str(database.get("url", ""))
    with contextlib.suppress(ArgumentError):  # no address at all
        if make_url(url).password:
            raise ValuesError(
                f"{name}: hub.db.url contains a password, which is secret: put it in the\n"
                "Secret that hub.existingSecret names (docs/kubernetes.md, Install)."
            )
    if database["type"] == "postgres" and not url.startswith("postgresql"):
        raise ValuesError(
            f"{name}: hub.db.url is {url!r}, but this size keeps accounts in PostgreSQL. Give its\n"
            "address, such as postgresql+psycopg2://hub@postgres.example.org:5432/hub."
        )


def check_config(name: str, values: Mapping[str, Any]) -> None:
    """Check that the classes and traits in hub.config and in the profiles exist."""
    config = values["hub"]["config"]
    chosen = str((config.get("JupyterHub") or {}).get("authenticator_class"))
    known = classes(chosen)
    for kind, traits in config.items():
        if kind not in known:
            # The chart's hub has this one, but it is not installed here, so it cannot be checked.
            if chosen.endswith(f".{kind}"):
                continue
            raise ValuesError(
                f"{name}: hub.config.{kind} is not a class of the hub{nearest(kind, known)}; "
                f"there are {', '.join(sorted(known))}."
            )
        check_traits(f"{name}: hub.config.{kind}", known[kind], traits or {})
    for profile in values["singleuser"]["profileList"]:
        where = f"{name}: the profile {profile['slug']}"
        check_traits(where, KubeSpawner, profile["kubespawner_override"])


def check_traits(where: str, kind: type[Configurable], traits: Mapping[str, Any]) -> None:
    """Check that the class has these traits, and that they accept these values."""
    known = kind.class_traits(config=True)
    for trait, value in traits.items():
        if trait not in known:
            raise ValuesError(f"{where}.{trait} does not exist{nearest(trait, known)}.")
        # None means the default. A class may be installed in the chart's hub, but not here.
        if value is None or isinstance(known[trait], Type) or not hasattr(known[trait], "validate"):
            continue
        try:
            known[trait].validate(HasTraits(), value)
        except TraitError:
            wanted = known[trait].info()
            raise ValuesError(f"{where}.{trait} is {value!r}, but it has to be {wanted}.") from None


def classes(authenticator: str) -> dict[str, type[Configurable]]:
    """Return the classes that can be configured by name, including the authenticator's."""
    found = [JupyterHub, ConfigurableHTTPProxy, Spawner, KubeSpawner, Authenticator, OAuthenticator]
    points = entry_points(group="jupyterhub.authenticators", name=authenticator)
    try:
        chosen = next(iter(points)).load() if points else import_item(authenticator)
    except ImportError:
        chosen = Authenticator
    found += [kind for kind in chosen.mro() if issubclass(kind, Configurable)]
    return {kind.__name__: kind for kind in found}


def check_numbers(name: str, tree: Mapping[str, Any]) -> None:
    """Check that amounts are valid, none is negative, and no guarantee exceeds its limit."""
    for path, value in leaves(tree):
        negative = re.fullmatch(r"-[0-9].*", str(value))
        # Priorities are relative.
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
    """Return an amount as a number, or 0 if it is not one."""
    found = AMOUNT.fullmatch(str(value))
    return float(found[1]) * UNITS[found[2]] if found else 0
