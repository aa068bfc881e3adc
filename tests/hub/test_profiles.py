from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from tornado import web

from tfcourse.hub.operations import values
from tfcourse.hub.spawners import containers, processes
from tfcourse.hub.spawners import pods as our_pods
from tfcourse.hub.spawners.profiles import (
    PROFILES,
    Profile,
    apply_user_options,
    choose_profile,
    render_form,
    with_limits,
)

CPU, GPU = PROFILES
NASTY = Profile(
    slug='"><script>alert(1)</script>',
    name="<b>A & B</b>",
    description="<img src=x onerror=y>",
    tag="cpu",
    memory=1,
)
TWO = (CPU, NASTY)
BACKENDS = [processes, containers, our_pods]
NO_GPU = {"tensorflow-gpu": "Not available: <no> GPU."}


class Elements(HTMLParser):
    """The profile form's start tags (with their attributes) and text, as a browser parses them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_form_has_a_labelled_and_described_radio_button_for_each_profile():
    form = Elements(render_form(TWO, {}))
    assert [tag for tag, _ in form.tags][:2] == ["fieldset", "legend"]
    radios = form.all("input")
    assert [radio["value"] for radio in radios] == [profile.slug for profile in TWO]
    assert {(radio["type"], radio["name"]) for radio in radios} == {("radio", "profile")}
    assert [label["for"] for label in form.all("label")] == [radio["id"] for radio in radios]
    assert [p["id"] for p in form.all("p")] == [radio["aria-describedby"] for radio in radios]
    assert ["checked" in radio for radio in radios] == [True, False]


def test_form_escapes_whatever_a_profile_says():
    form = Elements(render_form(TWO, {}))
    assert {tag for tag, _ in form.tags} == {"fieldset", "legend", "div", "input", "label", "p"}
    assert "<b>A & B</b>" in form.text
    assert "<img src=x onerror=y>" in form.text


def test_every_slug_is_its_own():
    assert len({profile.slug for profile in PROFILES}) == len(PROFILES)


@pytest.mark.parametrize("options", [{}, {"profile": "tensorflow-cpu"}])
def test_cpu_is_chosen_by_name_and_by_default(options):
    assert choose_profile(options, [CPU], {}).name == "TensorFlow (CPU)"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "tensorflow-gpu"}, "There is no environment called 'tensorflow-gpu'"),
        ({"profile": ["tensorflow-cpu", "tensorflow-cpu"]}, "There is no environment called ["),
        ({"profile": None}, "There is no environment called None"),
        ({"profile": {}}, "There is no environment called {}"),
        ({"profile": True}, "There is no environment called True"),
        ({"image": "debian", "profile": "tensorflow-cpu"}, "The option 'image' does not exist"),
        ({"profile_file": []}, "The option 'profile_file' does not exist"),
        (["tensorflow-cpu"], "The options are ['tensorflow-cpu'], not"),
        ("tensorflow-cpu", "The options are 'tensorflow-cpu', not"),
        (0, "The options are 0, not"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=r"profile|choose") as refusal:
        choose_profile(options, [CPU], {})
    assert str(refusal.value).startswith(sentence)


def test_what_is_sent_back_is_short():
    with pytest.raises(ValueError, match="no environment") as refusal:
        choose_profile({"profile": "x" * 100_000}, TWO, {})
    assert len(str(refusal.value)) < 200


def test_refusal_is_a_400_and_is_not_remembered():
    spawner = SimpleNamespace(orm_spawner=SimpleNamespace(user_options={"profile": "nope"}))
    with pytest.raises(web.HTTPError, match="nope") as refusal:
        apply_user_options(
            spawner, {"profile": "nope"}, traits_of=vars, profiles=TWO, unavailable={}
        )
    assert refusal.value.status_code == 400
    assert not spawner.orm_spawner.user_options


def test_a_chosen_profile_sets_its_traits():
    spawner = SimpleNamespace()
    options = {"profile": NASTY.slug}
    apply_user_options(
        spawner, options, traits_of=lambda p: {"mem_limit": p.memory}, profiles=TWO, unavailable={}
    )
    assert vars(spawner) == {"mem_limit": 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_profiles_of_a_backend_set_the_same_traits(backend):
    """Spawners are reused, so any trait that the next profile omits would keep its old value."""
    assert len({frozenset(backend.traits_of(profile)) for profile in PROFILES}) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_that_is_changed_in_the_table_is_changed_in_every_backend(backend):
    changed = replace(CPU, cpus=7)
    assert backend.traits_of(changed) == {**backend.traits_of(CPU), "cpu_limit": 7}


def test_a_number_that_is_changed_in_the_table_is_changed_in_the_charts_values(monkeypatch):
    def made(profile):
        monkeypatch.setattr(values.profiles, "PROFILES", (profile,))
        site = {"singleuser": {}}
        return values.generated({}, site, "registry.example.org/course", "site.yaml")["singleuser"]

    changed, before = made(replace(CPU, cpus=7)), made(CPU)
    assert changed["profileList"][0]["kubespawner_override"]["cpu_limit"] == 7
    assert changed["cpu"]["limit"] == 7  # placeholder pods use this
    changed["profileList"][0]["kubespawner_override"]["cpu_limit"] = changed["cpu"]["limit"] = 2
    assert changed == before


def test_pods_take_every_limit_but_that_of_processes():
    changed = replace(
        GPU,
        memory=5,
        cpus=1.5,
        guaranteed_memory=4,
        guaranteed_cpus=0.1,
    )
    limits = our_pods.traits_of(changed)
    assert our_pods.shared_memory(7 * 2**20)["emptyDir"]["sizeLimit"] == "7Mi"
    assert limits["extra_resource_limits"] == {"nvidia.com/gpu": "1"}
    expected = {"mem_limit": 5, "mem_guarantee": 4, "cpu_limit": 1.5, "cpu_guarantee": 0.1}
    assert expected.items() <= limits.items()


def test_containers_take_every_limit():
    limits = containers.traits_of(replace(GPU, memory=5, cpus=1.5, processes=6, shared_memory=7))
    host = limits.pop("extra_host_config")
    assert limits == {"image": GPU.image, "gpu": True, "mem_limit": 5, "cpu_limit": 1.5}
    assert {"memswap_limit": 5, "pids_limit": 6, "shm_size": 7}.items() <= host.items()


def test_the_operator_sets_limits_for_each_kind(monkeypatch):
    monkeypatch.setenv("COURSE_MEMORY", "1.5G")
    monkeypatch.setenv("COURSE_GPU_CPUS", "4")
    assert with_limits(CPU) == replace(CPU, memory=1536 * 2**20)
    assert with_limits(GPU) == replace(GPU, cpus=4)


def test_no_more_is_guaranteed_than_allowed(monkeypatch):
    monkeypatch.setenv("COURSE_MEMORY", "1G")
    monkeypatch.setenv("COURSE_CPUS", "0.25")
    lowered = with_limits(CPU)
    assert (lowered.guaranteed_memory, lowered.guaranteed_cpus) == (2**30, 0.25)


@pytest.mark.parametrize("variable", ["COURSE_MEMORY", "COURSE_CPUS"])
def test_a_limit_that_cannot_be_ends_with_a_sentence(monkeypatch, variable):
    monkeypatch.setenv(variable, "-1")
    with pytest.raises(SystemExit, match=f"{variable} is '-1', but it has to be"):
        with_limits(CPU)
    with_limits(GPU)


def test_what_is_not_available_says_why_and_cannot_be_chosen():
    form = Elements(render_form(PROFILES, NO_GPU))
    assert ["disabled" in radio for radio in form.all("input")] == [False, True]
    assert NO_GPU["tensorflow-gpu"] in form.text
    with pytest.raises(ValueError, match=r"GPU\): Not available: .* choose|Choose") as refusal:
        choose_profile({"profile": "tensorflow-gpu"}, PROFILES, NO_GPU)
    assert str(refusal.value).endswith("Choose one of these: tensorflow-cpu.")
