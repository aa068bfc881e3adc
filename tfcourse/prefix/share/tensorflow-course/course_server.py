"""A Jupyter server extension that sends attempts and notebooks, and fetches feedback."""

import asyncio
import contextlib
import json
import os
import threading
from pathlib import Path

import course_attempts
import course_feedback
import course_hand_in
import course_hub
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web


class HandInHandler(APIHandler):
    """The endpoint for the button in JupyterLab."""

    @web.authenticated
    async def get(self):
        """Send the assignments, after writing their feedback to files."""
        await self.answer(self.assignments)

    def assignments(self):
        """Return the assignments, with the paths of feedback files as JupyterLab needs them."""
        course_feedback.write(given := course_hand_in.assignments())
        for each in given:
            for receipt in filter(None, each["lessons"].values()):
                if file := receipt.pop("file", None):
                    with contextlib.suppress(ValueError):  # not in a folder that JupyterLab shows
                        file = Path(file).relative_to(self.contents_manager.root_dir)
                        receipt["file"] = file.as_posix()
        return given

    @web.authenticated
    async def post(self):
        """Hand in the notebook at a path."""
        path = (self.get_json_body() or {}).get("path")
        if not isinstance(path, str):
            raise web.HTTPError(400, "The path is missing.")
        # This raises HTTP 404 for a path outside the server's root folder.
        file = self.contents_manager._get_os_path(path)
        await self.answer(lambda: course_hand_in.hand_in(file, course_hand_in.assignments()))

    async def answer(self, do):
        """Send a function's result, or the reason why nothing was handed in."""
        try:
            result = {"result": await asyncio.to_thread(do)}
        except course_hand_in.NotHandedInError as error:
            result = {"problem": str(error)}
        self.finish(json.dumps(result))


def _jupyter_server_extension_points():
    return [{"module": "course_server"}]


def _load_jupyter_server_extension(server):
    url = url_path_join(server.web_app.settings["base_url"], "course", "hand-in")
    server.web_app.add_handlers(".*", [(url, HandInHandler)])
    if course_hub.is_there():
        threading.Thread(target=course_feedback.write_for_ever, daemon=True).start()
    if course_hub.is_there() and "COURSE_ATTEMPTS" in os.environ:
        path = Path(os.environ["COURSE_ATTEMPTS"]).expanduser()
        sender = course_attempts.Attempts(path)
        threading.Thread(target=sender.send_for_ever, daemon=True).start()
