"""Test the values that `make values` generates for Zero to JupyterHub, and its error messages."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfcourse.hub.operations import values
from tfcourse.hub.operations.values import CHART_FOLDER, SIZES, ValuesError, make
from tfcourse.hub.state import ROOT

IMAGE = "registry.example.org/tensorflow-course/1.0"
EXAMPLE = CHART_FOLDER / "site.example.yaml"


@pytest.fixture
def site(tmp_path):
    """Return a function that writes a completed copy of the example file with one key changed."""

    def write(keys: str = "", value: object = None) -> Path:
        tree = yaml.safe_load(EXAMPLE.read_text())
        tree["ingress"]["ingressClassName"] = "traefik"
        *above, last = keys.split("/")
        place = tree
        for key in above:
            place = place.setdefault(key, {})
        if last:
            place[last] = value
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_one_file_with_the_site_on_top(site, size):
    made = make(size, IMAGE, site())
    assert made["hub"]["existingSecret"] == "course-hub"
    assert made["ingress"] == {
        "enabled": True,
        "annotations": {},
        **yaml.safe_load(site().read_text())["ingress"],
    }
    assert made["hub"]["db"]["type"] == ("postgres" if size == "university" else "sqlite-pvc")
    assert "course" not in made


@pytest.mark.parametrize("size", SIZES)
def test_out_of_a_learners_pod_lead_the_hub_and_names_alone(site, size):
    made = make(size, IMAGE, site())
    assert made["hub"]["networkPolicy"]["enabled"] is True
    assert made["singleuser"]["networkPolicy"]["enabled"] is True
    rules = made["singleuser"]["networkPolicy"]["egressAllowRules"]
    # The values must set each of these egress rules explicitly, because the chart may allow the
    # traffic by default.
    assert rules.keys() >= {"cloudMetadataServer", "nonPrivateIPs", "privateIPs"}
    assert {
        rule for rule, is_open in rules.items() if is_open and not rule.startswith("dns")
    } == set()


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_ready_for_a_class(site, size):
    """Images are pulled early, idle servers are stopped, and many servers can start at once."""
    made = make(size, IMAGE, site())
    assert made["prePuller"]["hook"]["enabled"] is True
    assert made["prePuller"]["continuous"]["enabled"] is True
    assert made["cull"]["enabled"] is True
    assert made["hub"]["consecutiveFailureLimit"] == 0
    assert made["hub"]["concurrentSpawnLimit"] == 100
    purpose = made["scheduling"]["userPods"]["nodeAffinity"]["matchNodePurpose"]
    assert purpose == ("require" if size == "university" else "prefer")


def test_the_guides_log_in_from_a_learning_platform_is_taken(site):
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    part = yaml.safe_load(guide.split("```yaml\n")[1].split("```")[0])
    made = make("class", IMAGE, site("hub/config", part["hub"]["config"]))
    assert made["hub"]["config"]["LTI13Authenticator"]["username_key"] == "sub"


def test_the_guides_host_names_for_learners_are_taken(site):
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    part = yaml.safe_load(guide.split("```yaml\n")[2].split("```")[0])
    path = site()
    path.write_text(yaml.safe_dump(values.merge(yaml.safe_load(path.read_text()), part)))
    made = make("class", IMAGE, path)
    assert made["hub"]["config"]["JupyterHub"]["authenticator_class"] == "generic-oauth"
    assert made["ingress"]["hosts"] == ["hub.example.org", "*.hub.example.org"]


def test_placeholders_are_for_the_larger_ones(site):
    replicas = [
        make(size, IMAGE, site())["scheduling"]["userPlaceholder"]["replicas"] for size in SIZES
    ]
    assert replicas[0] == 0 < replicas[1] < replicas[2]


def test_gpus_are_offered_where_there_are_some(site):
    def offered(path):
        return [p["slug"] for p in make("class", IMAGE, path)["singleuser"]["profileList"]]

    assert offered(site()) == ["tensorflow-cpu"]
    assert offered(site("course/gpus", True)) == ["tensorflow-cpu", "tensorflow-gpu"]


def test_the_example_changes_no_limit():
    """The example file sets no limits, so copies of it use the current default limits."""
    course = yaml.safe_load(EXAMPLE.read_text())["course"]
    assert course == {"gpus": False, "hub": False}


def test_the_site_sets_limits(site):
    path = site("course/profiles", {"tensorflow-cpu": {"memory": "1G", "cpus": 4}})
    made = make("class", IMAGE, path)["singleuser"]
    # The site file sets no memory guarantee, so the guarantee equals the limit.
    assert made["memory"] == {"limit": "1024M", "guarantee": "1024M"}
    assert made["cpu"] == {"limit": 4.0, "guarantee": 0.5}


def test_the_site_adds_a_toleration_to_ours(site):
    own = {"key": "course", "operator": "Exists"}
    made = make("class", IMAGE, site("singleuser/extraTolerations", [own]))
    (profile,) = made["singleuser"]["profileList"]
    found = profile["kubespawner_override"]["tolerations"]
    assert [toleration["key"] for toleration in found] == [
        "hub.jupyter.org/dedicated",
        "hub.jupyter.org_dedicated",
        "course",
    ]


def test_no_number_is_written_so_that_helm_changes_it(site):
    """Helm reads integers as floats and writes large ones in exponential notation (1e+06)."""
    for path, value in values.leaves(make("university", IMAGE, site())):
        assert not isinstance(value, int) or value < 10**6, path


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        ("hub/config/GenericOAuthenticator/client_secret", "s3", "client_secret is secret: put"),
        ("hub/db/password", "s3", "hub.db.password is secret: put it in the Secret that"),
        (
            "hub/db/url",
            "postgresql+psycopg2://hub:s3@postgres.example.org/hub",
            "hub.db.url contains a password, which is secret",
        ),
        (
            "hub/config/KubeSpawner/container_security_context",
            {"privileged": True},
            "KubeSpawner.container_security_context isolates learners' pods. It comes",
        ),
        ("hub/config/KubeSpawner/privileged", True, "KubeSpawner.privileged isolates"),
        (
            "singleuser/storage/capacity",
            "five gigs",
            "storage.capacity is 'five gigs', but it has to be like 5Gi or 500m",
        ),
        ("ingress/ingressClassName", "CHANGE-ME", "is still CHANGE-ME; the comment above it in"),
        ("singleuser/memory/limit", "3G", "singleuser.memory.limit is set by `make values`"),
        ("singleuser/profileList", [], "singleuser.profileList is set by `make values`"),
        ("hub/extraEnv/COURSE_SIGNUP", "open", "is for our hub image: set course.hub to true"),
        (
            "hub/config/KubeSpawner/start_timout",
            5,
            "hub.config.KubeSpawner.start_timout does not exist (did you mean start_timeout?)",
        ),
        (
            "hub/config/GenericOAuthenticator/alow_all",
            True,
            "hub.config.GenericOAuthenticator.alow_all does not exist (did you mean allow_all?)",
        ),
        (
            "hub/config/Authenticatr/allow_all",
            True,
            "hub.config.Authenticatr is not a class of the hub (did you mean Authenticator?)",
        ),
        (
            "hub/config/JupyterHub/authenticator_class",
            "dummy",
            "or it is 'dummy',\nwhich admits everyone",
        ),
        ("hub/config/JupyterHub", {}, "authenticator_class is missing"),
        ("cull/timeout", -1, "cull.timeout is -1, but it cannot be negative"),
        ("singleuser/storage/capacity", "-5Gi", "capacity is '-5Gi', but it cannot be negative"),
        (
            "hub/resources/requests/memory",
            "64Gi",
            "hub.resources.requests.memory is '64Gi', which is more than the limit, '2Gi'",
        ),
        (
            "course/profiles/tensorflow-cpx",
            {},
            "there is no profile 'tensorflow-cpx' (did you mean tensorflow-cpu?)",
        ),
        (
            "course/profiles/tensorflow-cpu/memry",
            "3G",
            "course.profiles.tensorflow-cpu.memry does not exist (did you mean memory?)",
        ),
        (
            "course/profiles/tensorflow-cpu/memory",
            "-3G",
            "tensorflow-cpu.memory is '-3G', but it has to be like 3G",
        ),
        (
            "course/profiles/tensorflow-cpu/cpus",
            "many",
            "tensorflow-cpu.cpus is 'many', but it has to be like 2",
        ),
        (
            "course/profiles/tensorflow-cpu/guaranteed_cpus",
            3,
            "tensorflow-cpu.guaranteed_cpus is 3, more than the limit (cpus)",
        ),
        (
            "course/profiles/tensorflow-cpu/memory",
            3,
            "tensorflow-cpu.memory is 3, but it has to be like 3G or 1500M, and not below 256M",
        ),
        ("course/profiles/tensorflow-cpu/guaranteed_memory", "500K", "memory is '500K', but"),
        ("course/profiles/tensorflow-cpu/shared_memory", "0.5M", "and not below 1M"),
        ("course/profiles/tensorflow-cpu", "3G", "is '3G', but it has to be a map of memory, "),
        ("scheduling/userPods", None, "scheduling.userPods is None, but it has to be a map"),
        (
            "hub/db/type",
            "sqlite-memory",
            "'sqlite-memory', but it has to be sqlite-pvc or postgres",
        ),
        (
            "hub/config/JupyterHub/authenticator_class",
            "jupyterhub.auth.DummyAuthenticator",
            "or it is 'dummy',\nwhich admits everyone",
        ),
        (
            "hub/concurrentSpawnLimit",
            "many",
            "concurrentSpawnLimit is 'many', but it has to be a whole number",
        ),
        ("cull/enabled", "no", "cull.enabled is 'no', but it has to be true or false"),
        (
            "hub/config/GenericOAuthenticator/allow_all",
            "yes",
            "GenericOAuthenticator.allow_all is 'yes', but it has to be a boolean",
        ),
        (
            "hub/config/KubeSpawner/start_timeout",
            "10m",
            "KubeSpawner.start_timeout is '10m', but it has to be an int",
        ),
        ("hub/config/Authenticator/admin_users", 7, "admin_users is 7, but it has to be a set"),
        (
            "hub/config/GenericOAuthenticator/allow_all",
            False,
            "hub.config admits nobody. Set allow_all: true",
        ),
        ("course/gpu", True, "course.gpu does not exist (did you mean gpus?)"),
        ("course/gpus", "yes", "course.gpus is 'yes', but it has to be true or false"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence_that_names_it(site, keys, value, sentence):
    with pytest.raises(ValuesError) as refusal:
        make("class", IMAGE, site(keys, value))
    said = str(refusal.value)
    assert said.startswith("site.yaml: ")
    assert sentence in said


@pytest.mark.parametrize("url", [None, "sqlite:///jupyterhub.sqlite"])
def test_without_a_server_there_are_no_accounts_on_one(site, url):
    """Without PostgreSQL, the chart would use a database that is lost with the hub's container."""
    with pytest.raises(ValuesError, match="this size keeps accounts in PostgreSQL"):
        make("university", IMAGE, site("hub/db", {"url": url} if url else {}))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("hub/extraConfig/a", "c.JupyterHub.log_level = 10"),
        ("hub/nodeSelector/pool", "core"),
        ("imagePullSecrets", [{"name": "course-registry"}]),
        ("singleuser/extraEnv/LANG", "de_DE.UTF-8"),
        ("hub/extraEnv/DOCKER", "podman"),  # one of our settings, but not used on clusters
        ("scheduling/corePods/tolerations", []),
    ],
)
def test_keys_of_the_chart_that_our_files_do_not_use_are_kept(site, keys, value):
    made = make("class", IMAGE, site(keys, value))
    for key in keys.split("/"):
        made = made[key]
    assert made == value


# --- Our image as the hub


@pytest.fixture
def ours(site):
    """Return a function that writes a site file with our hub image and the given settings."""

    def write(extra_env: dict, **config: object) -> Path:
        tree = yaml.safe_load(site().read_text())
        tree["course"]["hub"] = True
        tree["hub"] = {"config": config, "extraEnv": extra_env}
        path = site()
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def test_our_image_as_the_hub_knows_where_it_is(ours):
    hub = make("class", IMAGE, ours({"COURSE_SIGNUP": "open"}))["hub"]
    assert hub["image"] == {"name": IMAGE, "tag": "hub"}
    assert hub["extraEnv"] == {
        "COURSE_SIGNUP": "open",
        "COURSE_STATE": "/srv/jupyterhub",
        "COURSE_HOST": "hub.example.org",
        "COURSE_IDLE_MINUTES": "60",
    }


def test_our_image_leaves_log_in_to_an_authenticator_that_the_site_names(ours):
    config = {"JupyterHub": {"authenticator_class": "generic-oauth"}}
    config["GenericOAuthenticator"] = {"allow_all": True}
    assert make("class", IMAGE, ours({}, **config))["hub"]["image"]["tag"] == "hub"
    with pytest.raises(ValuesError, match="COURSE_ACCOUNTS is for the course's own accounts"):
        make("class", IMAGE, ours({"COURSE_ACCOUNTS": "oauth"}, **config))


def test_a_secret_setting_comes_from_a_secret(ours):
    reference = {"valueFrom": {"secretKeyRef": {"name": "course-hub", "key": "class-code"}}}
    made = make("class", IMAGE, ours({"COURSE_CLASS_CODE": reference}))
    assert made["hub"]["extraEnv"]["COURSE_CLASS_CODE"] == reference
    with pytest.raises(ValuesError, match="COURSE_CLASS_CODE is secret: put it in the Secret"):
        make("class", IMAGE, ours({"COURSE_CLASS_CODE": "quiet-morning"}))


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("COURSE_SIGNUPP", "open", r"not a setting for a cluster \(did you mean COURSE_SIGN"),
        ("COURSE_MEMORY", "3G", "not a setting for a cluster"),  # course.profiles sets this
        ("COURSE_SIGNUP", "yes", "'yes', but it has to be 'approval' or 'open'"),
        ("COURSE_HOST", "x.example.org", "hub.extraEnv.COURSE_HOST is set by `make values`"),
    ],
)
def test_a_setting_that_our_image_would_refuse_gets_a_sentence(ours, setting, value, sentence):
    with pytest.raises(ValuesError, match=sentence):
        make("class", IMAGE, ours({setting: value}))


def test_an_unknown_trait_of_a_profile_is_refused(site, monkeypatch):
    """A new version of KubeSpawner might rename a trait that our profiles set."""
    before = values.override
    monkeypatch.setattr(values, "override", lambda *a: {**before(*a), "mem_limits": "3G"})
    with pytest.raises(
        ValuesError, match=r"tensorflow-cpu.mem_limits does not exist .*mem_limit\?"
    ):
        make("class", IMAGE, site())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("clas", IMAGE, EXAMPLE), "There is no size 'clas' (did you mean class?)"),
        (("class", "tensorflow-course", EXAMPLE), "nodes fetch it from a registry"),
        (("class", f"{IMAGE}:cpu", EXAMPLE), "without a tag"),
        (("class", IMAGE, Path("/nowhere.yaml")), "/nowhere.yaml cannot be read: No such file"),
        (("class", IMAGE, Path("/dev/null")), "/dev/null has to be a map"),
    ],
)
def test_what_is_missing_is_named(arguments, sentence):
    with pytest.raises(ValuesError) as refusal:
        make(*arguments)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe", "site.yaml is not YAML: "),
        (b"a: \x1b[2J", "site.yaml is not YAML: "),
        (b"a: 2026-13-45", "site.yaml is not YAML: month must be in 1..12"),
        (b"[" * 10_000, "site.yaml is not YAML: "),
        (b"a: !!python/object/apply:os.getcwd []", "site.yaml is not YAML: "),
        (b"hub: &a\n  b: *a", "is too large, or one of its aliases .* refers to itself"),
        (b"hub: &a [*a]", "is too large, or one of its aliases"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(
                b"%c: &%c [%b]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 10))
                for n in range(ord("a"), ord("j"))
            ),
            "is too large, or one of its aliases",
        ),
        (b"hub: {on: 1}", "the key True has to be text: put it in quotes"),
        (b"hub: {null: 1}", "the key None has to be text"),
        (b"? [1]\n: 2", "site.yaml is not YAML"),
        (b"", "has to be a map of keys"),
        (b"- hub", "has to be a map of keys"),
    ],
)
def test_odd_yaml_gets_a_sentence(tmp_path, content, sentence):
    (tmp_path / "site.yaml").write_bytes(content)
    with pytest.raises(ValuesError, match=sentence):
        make("class", IMAGE, tmp_path / "site.yaml")


def test_a_file_that_is_no_yaml_says_where(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("hub: [\n")
    with pytest.raises(ValuesError, match=r"site.yaml is not YAML: .* line 2"):
        make("class", IMAGE, path)


def test_an_authenticator_that_only_the_charts_hub_has_is_left_to_it(site):
    path = site("hub/config/JupyterHub/authenticator_class", "ldapauthenticator.LDAPAuthenticator")
    tree = yaml.safe_load(path.read_text())
    tree["hub"]["config"]["LDAPAuthenticator"] = {"server_address": "ldap.x", "allow_all": True}
    del tree["hub"]["config"]["GenericOAuthenticator"]
    path.write_text(yaml.safe_dump(tree))
    make("class", IMAGE, path)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "tfcourse.hub.operations", "values", "--image", IMAGE]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)


def test_the_shell_does_not_get_into_the_clusters_file(site, monkeypatch):
    before = make("class", IMAGE, site())
    monkeypatch.setenv("COURSE_MEMORY", "1G")
    monkeypatch.setenv("COURSE_CPUS", "1")
    assert make("class", IMAGE, site()) == before


def test_the_command_writes_a_file_or_leaves_it_alone(site, tmp_path):
    output = tmp_path / "new" / "values.yaml"
    first = command("--size", "class", "--output", str(output), str(site()))
    assert first.returncode == 0, first.stderr
    output.write_text("as before")
    wrong = command("--size", "class", "--output", str(output), str(site("course/gpu", True)))
    assert (wrong.returncode, output.read_text()) == (1, "as before")
    assert wrong.stderr.startswith("site.yaml: course.gpu does not exist")
    right = command("--size", "class", "--output", str(output), str(site()))
    assert right.returncode == 0, right.stderr
    assert yaml.safe_load(output.read_text()) == make("class", IMAGE, site())


def needs_helm():
    if not shutil.which("helm"):
        pytest.skip("helm, which reads the values, is not on PATH")


@pytest.mark.parametrize("size", SIZES)
def test_helm_hands_the_values_on_as_they_are(site, size, tmp_path):
    """A minimal chart stores the values in a Secret, as the real chart does for its hub.

    Helm must preserve every value, including integers and nulls. A profile uses null to remove the
    GPU that the previous profile requested.
    """
    needs_helm()
    chart, path = tmp_path / "chart", tmp_path / "values.yaml"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: all, version: 1.0.0}")
    secret = "apiVersion: v1\nkind: Secret\ndata: {values: {{ toYaml .Values | b64enc }}}\n"
    (chart / "templates" / "secret.yaml").write_text(secret)
    made = make(size, IMAGE, site("course/gpus", True))
    path.write_text(yaml.dump(made, Dumper=values.Dumper))
    command = ["helm", "template", "course", str(chart), "--values", str(path)]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    found = yaml.safe_load(base64.b64decode(yaml.safe_load(said)["data"]["values"]))
    assert found == made
    kinds = {path: type(value) for path, value in values.leaves(found)}
    whole = [path for path, value in values.leaves(made) if type(value) is int]
    assert {kinds[path] for path in whole} == {int}
    without = found["singleuser"]["profileList"][0]["kubespawner_override"]
    assert without["extra_resource_limits"] == {"nvidia.com/gpu": None}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("hub/extraEnv", [{"name": "A", "value": "b"}], "hub.extraEnv is .* map of keys"),
        ("singleuser/storage/extraVolumes", [], "extraVolumes is .* map of keys"),
    ],
)
@pytest.mark.parametrize("course_hub", [False, True])
def test_a_list_in_place_of_our_map_gets_a_sentence(site, key, value, sentence, course_hub):
    """Helm would accept a list in the site file, but our values would replace it."""
    path = site(key, value)
    path.write_text(path.read_text() + f"\ncourse: {{hub: {str(course_hub).lower()}}}\n")
    with pytest.raises(ValuesError, match=sentence):
        make("class", IMAGE, path)


def test_our_hub_needs_a_host_name(site):
    path = site("ingress/hosts", [])
    path.write_text(path.read_text() + "\ncourse: {hub: true}\n")
    with pytest.raises(ValuesError, match=r"host name in ingress\.hosts"):
        make("class", IMAGE, path)


@pytest.mark.network
@pytest.mark.parametrize("size", SIZES)
def test_helm_takes_the_values(site, size, tmp_path):
    """The chart's schema and templates accept the values.

    Skip the test if Helm or the chart is not available.
    """
    needs_helm()
    path = tmp_path / "values.yaml"
    path.write_text(yaml.dump(make(size, IMAGE, site()), Dumper=values.Dumper))
    where = ["--repo", "https://hub.jupyter.org/helm-chart/", "--version", values.CHART]
    pull = ["helm", "pull", "jupyterhub", *where, "--untar", "--untardir", str(tmp_path)]
    fetched = subprocess.run(pull, capture_output=True, text=True, check=False)
    if fetched.returncode:
        assert "not found" not in fetched.stderr, f"there is no chart {values.CHART}"
        pytest.skip(f"the chart, which has the schema, cannot be fetched: {fetched.stderr}")
    chart = str(tmp_path / "jupyterhub")
    for action in (["lint", "--strict", chart], ["template", "course", chart]):
        run = subprocess.run(
            ["helm", *action, "--values", str(path)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
