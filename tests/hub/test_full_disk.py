"""Test the hub while the disk that holds its accounts is full, and after space is freed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from hubs import PASSWORD, ClassHub, ClassLearner, post, wait_until

pytestmark = pytest.mark.root


class SmallHub(ClassHub):
    """A hub that stores its accounts on a separate 40 MB tmpfs."""

    def mount(self) -> None:
        """Create the volume for the accounts, and mount a tmpfs over it."""
        labels = {"project": self.name, "volume": "state"}
        volume = self.engine.volumes.create(
            f"{self.name}_state",
            labels={f"com.docker.compose.{key}": value for key, value in labels.items()},
        )
        self.disk = Path(volume.attrs["Mountpoint"])
        options = "size=40m,uid=1000,gid=1000,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.disk], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.disk], check=False)

    def fill(self) -> None:
        with contextlib.suppress(OSError), open(self.disk / "filling", "wb", 0) as file:
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        (self.disk / "filling").unlink()


@pytest.fixture(scope="module")
def hub(new_hub: Callable[..., ClassHub]) -> Iterator[SmallHub]:
    hub = new_hub(SmallHub)
    hub.mount()
    try:
        hub.up(COURSE_SIGNUP="open")
        hub.admit = hub.sign_up
        yield hub
    finally:
        with contextlib.suppress(AssertionError):
            hub.make("down")
        hub.unmount()


def whole_log(hub: ClassHub) -> str:
    return hub.container("hub").logs().decode()


def says_why(response: requests.Response) -> bool:
    """Return whether the response explains that the hub cannot save anything."""
    return response.status_code == 503 and "The hub cannot save anything" in response.text


def test_what_stopped_while_the_disk_was_full_is_put_right(hub):
    stopped, killed, both, away = (ClassLearner(hub, name) for name in ("ada", "bob", "cy", "dora"))
    for learner in (stopped, killed, both):
        learner.start_server()
    hub.fill()

    stopped.api("DELETE", "/hub/api/users/{name}/server")
    noticed = f"User {killed.name} server stopped"
    killed.container.remove(force=True)
    wait_until(lambda: noticed in whole_log(hub), "the hub has noticed")
    both.container.remove(force=True)
    both.api("DELETE", "/hub/api/users/{name}/server")
    assert says_why(away.api("POST", "/hub/api/users/{name}/server"))

    hub.free()
    for learner in (stopped, killed, both):
        seconds = wait_until(
            lambda learner=learner: not learner.server(), "the hub has noticed", 60
        )
        print(f"{learner.name}: {seconds:.1f} s after space was freed")
        learner.start_server()
        assert learner.api("GET", "/user/{name}/api/status").ok
        learner.stop_server()
    away.start_server()
    away.stop_server()
    assert "put_right" not in whole_log(hub), "no traceback in each round"


def test_people_who_come_while_the_disk_is_full_read_why(hub):
    eve, grace = ClassLearner(hub, "eve"), ClassLearner(hub, "grace")
    grace.start_server()
    admin = hub.login("instructor", hub.admin_password).session
    hub.fill()
    # Grace can keep working, although her server relies on the hub to identify her.
    assert grace.api("GET", "/user/{name}/api/status").ok
    session = hub.session()
    form = {"username": "fred", "signup_password": PASSWORD}
    form |= {"signup_password_confirmation": PASSWORD}
    responses = {
        "sign up": post(session, f"{hub.url}/hub/signup", data=form),
        "start": post(eve.session, f"{hub.url}/hub/spawn", data={"profile": "cpu"}),
        "start by REST": eve.api("POST", "/hub/api/users/{name}/server"),
        "change the password": post(
            eve.session,
            f"{hub.url}/hub/change-password",
            data={
                "old_password": PASSWORD,
                "new_password": f"{PASSWORD}!",
                "new_password_confirmation": f"{PASSWORD}!",
            },
        ),
        "a server's page, for the first time": grace.session.get(f"{hub.url}/user/grace/lab"),
        "a token": eve.api("POST", "/hub/api/users/{name}/tokens", json={}),
        "the token again": eve.api("POST", "/hub/api/users/{name}/tokens", json={}),
    }
    login = hub.login("eve")
    notice = post(admin, f"{hub.url}/hub/announcement", data={"text": "Hello " * 40})
    hub.free()
    assert {name: says_why(response) for name, response in responses.items()} == dict.fromkeys(
        responses, True
    )
    assert says_why(login) or login.url == f"{hub.url}/hub/spawn"
    assert (notice.status_code, "was not changed: No space left" in notice.text) == (503, True)
    # The refused requests have no lasting effects, and all succeed once space has been freed.
    assert "You have signed up as fred" in hub.sign_up("fred")
    assert hub.login("eve").url == f"{hub.url}/hub/spawn"
    assert eve.api("GET", "/hub/api/user").json()["name"] == "eve"
    eve.start_server()
    eve.stop_server()
