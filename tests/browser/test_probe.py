"""Test that an author can add a probe (an expression to compare) in the metadata editor."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from hubs import free_ports
from lab import wait_for_kernel
from playwright.sync_api import Page, expect

from nbval_tolerance.cli import main

PROBES = {"regression": {"probes": {"untrained scores": "scores"}}}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Start JupyterLab as `make lab` does, with one notebook; return its URL."""
    cell = nbformat.v4.new_code_cell("scores = [0.25, 0.75]\nprint('made')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "lesson.ipynb")
    assert main(["execute", str(tmp_path)]) == 0
    port, token = free_ports(), secrets.token_hex(8)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", f"--IdentityProvider.token={token}", f"--notebook-dir={tmp_path}"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urlopen(f"{url}/api?token={token}").close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"{url}/lab/workspaces/author/tree/lesson.ipynb?token={token}&reset"
    finally:
        process.terminate()
        process.wait(30)


def test_a_probe_is_added_in_the_metadata_editor(page: Page, lab: str, tmp_path: Path):
    page.goto(lab)
    wait_for_kernel(page)
    page.locator(".jp-CodeCell .jp-InputArea-editor").click()
    page.get_by_role("tab", name="Property Inspector").click()
    editor = page.locator(".jp-JSONEditor").first  # for the cell, not the notebook
    if not editor.is_visible():
        page.get_by_text("Advanced Tools").click()
    expect(editor).to_contain_text("source")
    editor.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(json.dumps(PROBES))
    editor.get_by_title("Commit changes to data").click()
    with page.expect_response(  # wait for the notebook to be saved, not the layout
        lambda reply: reply.request.method == "PUT" and "lesson.ipynb" in reply.url
    ):
        page.keyboard.press("Control+s")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert main(["execute", str(tmp_path), "--accept"]) == 0
    (cell,) = nbformat.read(tmp_path / "lesson.ipynb", as_version=4).cells
    assert cell.metadata.regression["values"] == {"untrained scores": "[0.25, 0.75]"}
    assert cell.outputs[0].text == "made\n"
