"""The environments that a learner can choose from, and the form that lets them choose."""

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

# The form's only field. DockerSpawner reads a field called `image`, so it must not be that.
FIELD = "profile"

# The images' name; their tags say what is in them.
IMAGE = settings.IMAGE()


@dataclass(frozen=True)
class Profile:
    """An environment that a learner can start. Each backend takes from it what it can enforce.

    Attributes
    ----------
    slug
        Its name in forms, links (`/hub/spawn?profile=slug`) and the REST API.
    name, description
        What the learner reads.
    tag
        Which of our images it is.
    memory
        What a server may use at most, in bytes.
    cpus
        How many processors it may use; TensorFlow starts that many threads.
    processes
        How many there may be. Threads count, and a kernel with TensorFlow has a hundred.
    shared_memory
        How large /dev/shm is, in bytes. Docker's own 64 MiB are too little for data loaders of
        several processes.
    guaranteed_memory, guaranteed_cpus
        What it has in any case; Kubernetes fills its nodes by these. A lesson takes 1.5 GiB at
        most, and most of the time a learner reads.
    gpu
        Whether it has a GPU for itself.
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
        """The image, as it is called on this server or in a registry."""
        return f"{IMAGE}:{self.tag}"


# The one table of what learners can start, on every backend. The first one is the default.
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
        "It trains large models faster; for the lessons you do not need it.",
        tag="gpu",
        memory=6 * GIB,  # CUDA's libraries need some
        gpu=True,
    ),
)


def configure(
    c: Any,
    traits_of: Callable[[Profile], Mapping[str, Any]],
    profiles: Iterable[Profile],
    unavailable: Mapping[str, str],
) -> None:
    """Set the picker. The same check answers its form, links and the REST API.

    `traits_of` says which traits of the spawner a profile sets. They are the same traits for
    each: a spawner is used again for the next one. `unavailable` says which profiles cannot be
    chosen, and why.
    """
    profiles = [with_limits(profile) for profile in profiles]
    c.Spawner.options_form = render_form(profiles, unavailable)
    c.Spawner.options_from_form = "simple"
    c.Spawner.apply_user_options = partial(
        apply_user_options, traits_of=traits_of, profiles=profiles, unavailable=unavailable
    )


def with_limits(profile: Profile) -> Profile:
    """Return the profile with the operator's limits; exit with a sentence if one cannot be."""
    memory = (settings.GPU_MEMORY if profile.gpu else settings.MEMORY)() or profile.memory
    cpus = (settings.GPU_CPUS if profile.gpu else settings.CPUS)() or profile.cpus
    return replace(
        profile,
        memory=memory,
        cpus=cpus,
        # Kubernetes refuses to guarantee more than it allows.
        guaranteed_memory=min(memory, profile.guaranteed_memory),
        guaranteed_cpus=min(cpus, profile.guaranteed_cpus),
    )


def render_form(profiles: Iterable[Profile], unavailable: Mapping[str, str]) -> str:
    """Return the picker as HTML: one radio button for each profile, the first one chosen.

    The hub puts it into a form of its own, with a button to start. A profile whose slug is in
    `unavailable` cannot be chosen; the reason given there is shown.
    """
    rows = []
    for number, profile in enumerate(profiles):
        identifier = escape(f"{FIELD}-{profile.slug}")
        # With the focus on the default, a keyboard user only has to press Enter.
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
    """Return the profile that a form, a link or a REST request asks for, by default the first.

    Raises
    ------
    ValueError
        With a sentence for the learner, if the request asks for anything else.
    """
    known = {profile.slug: profile for profile in profiles}
    choices = ", ".join(slug for slug in known if slug not in unavailable)
    # What was sent comes back in the sentence: shortened, as it may be of any length.
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
    """Set the spawner up for the chosen profile, or refuse with HTTP 400 and a sentence.

    The hub calls it (as `c.Spawner.apply_user_options`) for forms, links and the REST API alike.
    """
    try:
        profile = choose_profile(user_options, profiles, unavailable)
    except ValueError as error:
        # The hub has stored the options before asking, and takes them again when a later request
        # brings none: what was refused once must not be refused for ever.
        spawner.orm_spawner.user_options = None
        refusal = web.HTTPError(400, str(error))
        refusal.jupyterhub_message = str(error)  # the sentence alone, where a page shows it
        raise refusal from None
    for trait, value in traits_of(profile).items():
        setattr(spawner, trait, value)
