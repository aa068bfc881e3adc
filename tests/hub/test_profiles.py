from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from tornado import web

from tfcourse.hub.profiles import (
    PROFILES,
    Profile,
    apply_user_options,
    choose_profile,
    offered,
    render_form,
)

NASTY = Profile(
    slug='"><script>alert(1)</script>',
    name="<b>A & B</b>",
    description="<img src=x onerror=y>",
    overrides={},
)
TWO = (*offered("local"), NASTY)
NO_GPU = {"tensorflow-gpu": "Not available: <no> GPU."}


class Elements(HTMLParser):
    """The form as a browser sees it: start tags with attributes, and the text."""

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
    assert choose_profile(options, offered("local"), {}).name == "TensorFlow (CPU)"


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
        choose_profile(options, offered("local"), {})
    assert str(refusal.value).startswith(sentence)


def test_what_is_sent_back_is_short():
    with pytest.raises(ValueError, match="no environment") as refusal:
        choose_profile({"profile": "x" * 100_000}, TWO, {})
    assert len(str(refusal.value)) < 200


def test_refusal_is_a_400_and_is_not_remembered():
    spawner = SimpleNamespace(orm_spawner=SimpleNamespace(user_options={"profile": "nope"}))
    with pytest.raises(web.HTTPError, match="nope") as refusal:
        apply_user_options(
            spawner, {"profile": "nope"}, backend="local", profiles=TWO, unavailable={}
        )
    assert refusal.value.status_code == 400
    assert not spawner.orm_spawner.user_options


def test_overrides_are_those_of_the_backend():
    profile = Profile("big", "Big", "", {"docker": {"mem_limit": "8G"}, "local": {"debug": True}})
    spawner = SimpleNamespace()
    options = {"profile": "big"}
    apply_user_options(spawner, options, backend="docker", profiles=[profile], unavailable={})
    assert vars(spawner) == {"mem_limit": "8G"}


def test_a_profile_is_offered_where_it_says_how():
    assert [profile.slug for profile in offered("local")] == ["tensorflow-cpu"]
    assert [profile.slug for profile in offered("docker")] == ["tensorflow-cpu", "tensorflow-gpu"]


@pytest.mark.parametrize("backend", ["local", "docker"])
def test_all_profiles_of_a_backend_set_the_same_traits(backend):
    """A spawner is used again: what one profile sets and the next does not would stay."""
    assert len({frozenset(profile.overrides[backend]) for profile in offered(backend)}) == 1


def test_what_is_not_available_says_why_and_cannot_be_chosen():
    form = Elements(render_form(offered("docker"), NO_GPU))
    assert ["disabled" in radio for radio in form.all("input")] == [False, True]
    assert NO_GPU["tensorflow-gpu"] in form.text
    with pytest.raises(ValueError, match=r"GPU\): Not available: .* choose|Choose") as refusal:
        choose_profile({"profile": "tensorflow-gpu"}, offered("docker"), NO_GPU)
    assert str(refusal.value).endswith("Choose one of these: tensorflow-cpu.")
