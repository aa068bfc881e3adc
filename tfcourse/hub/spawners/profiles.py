"""The environments that learners can choose, and the form for choosing an environment."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

from jupyterhub.spawner import Spawner
from tornado import web

from tfcourse.hub import settings
from tfcourse.hub.settings import GIB, MIB

# The name of the form's only field. It cannot be `image`, because DockerSpawner reads a field of
# that name.
FIELD = "profile"

# The name of all images, which differ only in their tags.
IMAGE = settings.IMAGE()


@dataclass(frozen=True)
class Profile:
    """An environment that a learner can start.

    Each backend applies the attributes that it can enforce.

    Attributes
    ----------
    slug
        The environment's name in forms, links (`/hub/spawn?profile=slug`) and the REST API.
    name, description
        The text shown to learners.
    tag
        The tag of the environment's image.
    memory
        The memory limit of a server, in bytes.
    cpus
        The number of processors that a server can use; TensorFlow starts that many threads.
    processes
        The maximum number of processes and threads in a server. A kernel with TensorFlow has a
        hundred threads.
    shared_memory
        The size of /dev/shm, in bytes. Docker's default of 64 MiB is too small for data loaders
        with several processes.
    guaranteed_memory, guaranteed_cpus
        The memory and processors that a server is guaranteed. Kubernetes uses these values to
        assign servers to nodes. A lesson uses at most 1.5 GiB, and learners spend most of their
        time reading.
    gpu
        Whether a server has a GPU to itself.
    """

    slug: str
    name: str
    description: str
    tag: str
    memory: int
    cpus: float = 2
    processes: int = 1024
    shared_memory: int = 256 * MIB
    guaranteed_memory: int = 1536 * MIB
    guaranteed_cpus: float = 0.5
    gpu: bool = False

    @property
    def image(self) -> str:
        """Return the image's name on this server or in a registry."""
        return f"{IMAGE}:{self.tag}"


# The environments that learners can start, on every backend. The first one is the default.
PROFILES = (
    Profile(
        slug="tensorflow-cpu",
        name="TensorFlow (CPU)",
        description="Python with TensorFlow, Keras, NumPy and Matplotlib in JupyterLab. "
        "It runs on the processor, which is enough for every lesson.",
        tag="cpu",
        memory=3 * GIB,
    ),
    Profile(
        slug="tensorflow-gpu",
        name="TensorFlow (GPU)",
        description="The same with an NVIDIA GPU that is yours alone until you stop your server. "
        "It trains large models faster, but you do not need it for the lessons.",
        tag="gpu",
        memory=6 * GIB,  # CUDA's libraries need some of this memory
        gpu=True,
    ),
)


def configure(
    c: Any,
    traits_of: Callable[[Profile], Mapping[str, Any]],
    profiles: Iterable[Profile],
    unavailable: Mapping[str, str],
) -> None:
    """Configure the profile picker, and validate choices from forms, links and the REST API.

    `traits_of` returns the spawner traits for a profile. Every profile sets the same traits,
    because a spawner can be reused with another profile. `unavailable` maps the slugs of profiles
    that cannot be chosen to the reasons.
    """
    profiles = [with_limits(profile) for profile in profiles]
    c.Spawner.options_form = render_form(profiles, unavailable)
    c.Spawner.options_from_form = "simple"
    c.Spawner.apply_user_options = partial(
        apply_user_options, traits_of=traits_of, profiles=profiles, unavailable=unavailable
    )


def with_limits(profile: Profile) -> Profile:
    """Return the profile with the operator's limits; exit with a message if a limit is invalid."""
    memory = (settings.GPU_MEMORY if profile.gpu else settings.MEMORY)() or profile.memory
    cpus = (settings.GPU_CPUS if profile.gpu else settings.CPUS)() or profile.cpus
    return replace(
        profile,
        memory=memory,
        cpus=cpus,
        # Kubernetes rejects a guarantee that exceeds the limit.
        guaranteed_memory=min(memory, profile.guaranteed_memory),
        guaranteed_cpus=min(cpus, profile.guaranteed_cpus),
    )


def render_form(profiles: Iterable[Profile], unavailable: Mapping[str, str]) -> str:
    """Return the profile picker as HTML, with one radio button per profile and the first selected.

    JupyterHub inserts this HTML into its own form, which has a start button. Profiles whose slugs
    are in `unavailable` cannot be chosen. Instead, the picker shows the reasons.
    """
    rows = []
    for number, profile in enumerate(profiles):
        identifier = escape(f"{FIELD}-{profile.slug}")
        # Focus the default, so that keyboard users only have to press Enter.
        state = "" if number else " checked autofocus"
        reason = ""
        if profile.slug in unavailable:
            state = " disabled"
            reason = f" <strong>{escape(unavailable[profile.slug])}</strong>"
        rows.append(f"""
  <div class="form-check">
    <input class="form-check-input" type="radio" name="{FIELD}" id="{identifier}"
           value="{escape(profile.slug)}" aria-describedby="{identifier}-description"{state}>
    <label class="form-check-label fw-bold" for="{identifier}">{escape(profile.name)}</label>
    <p id="{identifier}-description">{escape(profile.description)}{reason}</p>
  </div>""")
    return f"""<fieldset>
  <legend>Choose an environment</legend>{"".join(rows)}
</fieldset>"""


def choose_profile(
    user_options: Any, profiles: Iterable[Profile], unavailable: Mapping[str, str]
) -> Profile:
    """Return the profile that a form, link or REST request selects, by default the first profile.

    Raises
    ------
    ValueError
        If the request is invalid. The message is for the learner.
    """
    known = {profile.slug: profile for profile in profiles}
    choices = ", ".join(slug for slug in known if slug not in unavailable)
    # Shorten the request in messages, because requests can have any length.
    if not isinstance(user_options, Mapping):
        raise ValueError(
            f"The options are {reprlib.repr(user_options)}, not an object with {FIELD!r} in it."
        )
    for name in user_options:
        if name != FIELD:
            raise ValueError(
                f"The option {reprlib.repr(name)} does not exist; "
                f"the only one is {FIELD!r}, with one of these values: {choices}."
            )
    slug = user_options.get(FIELD, next(iter(known)))
    if not isinstance(slug, str) or slug not in known:
        raise ValueError(
            f"There is no environment called {reprlib.repr(slug)}; choose one of these: {choices}."
        )
    if slug in unavailable:
        raise ValueError(f"{known[slug].name}: {unavailable[slug]} Choose one of these: {choices}.")
    return known[slug]


def apply_user_options(
    spawner: Spawner,
    user_options: Any,
    *,
    traits_of: Callable[[Profile], Mapping[str, Any]],
    profiles: Iterable[Profile],
    unavailable: Mapping[str, str],
) -> None:
    """Configure the spawner for the chosen profile, or raise HTTP 400 with a message.

    JupyterHub calls this function as `c.Spawner.apply_user_options` for forms, links and REST
    requests.
    """
    try:
        profile = choose_profile(user_options, profiles, unavailable)
    except ValueError as error:
        # JupyterHub has already stored the options, and would reuse them for a later request
        # without options. Clear the stored options, so that the later request does not fail because
        # of this one.
        spawner.orm_spawner.user_options = None
        refusal = web.HTTPError(400, str(error))
        refusal.jupyterhub_message = str(error)  # the message that the hub's pages show
        raise refusal from None
    for trait, value in traits_of(profile).items():
        setattr(spawner, trait, value)
