"""Sites without a browser: what is written, what is refused, what the server sends."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from pathlib import Path

import pytest
from support.command_line import cli

from impasto.errors import OptionError
from impasto.web import library
from impasto.web.server import HEADERS, server
from impasto.web.site import make_site


def test_a_site_holds_graphs_page_and_hashes(make_package, tmp_path):
    site = tmp_path / "site"
    code, said, stderr = cli("web", make_package(thumbnail=8), "denoise", "-o", site)
    assert code == 0 and "tiny, denoise" in said, stderr
    assert (site / "models/tiny/context.onnx").is_file() and (site / "models/denoise/model.onnx").is_file()
    page = (site / "index.html").read_text(encoding="utf-8")
    about = json.loads(re.search(r'id="site">(.*?)</script>', page)[1])
    assert [model["name"] for model in about["models"]] == ["tiny", "denoise"]
    assert (
        about["models"][0]["context"] == {"address": "models/tiny/context.onnx"}
        and about["models"][1]["context"] is None
    )
    assert about["models"][1]["about"].startswith("Removes noise of unknown strength")
    hashes = json.loads(re.search(r'importmap">(.*?)</script>', page)[1])["integrity"]
    # Every file from elsewhere has its hash: the modules here, the WebAssembly where it is fetched.
    assert all(
        way["entry"] in hashes and way["glue"] in hashes and way["integrity"] for way in about["library"].values()
    )
    assert all(library.VERSION in address for address in hashes)
    assert cli("web", "denoise", "-o", site)[0] == 0  # over a site of before


def test_what_cannot_be_is_refused(make_package, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "choose a new folder" in cli("web", "denoise", "-o", tmp_path / "mine")[2]
    assert "each once" in cli("web", "denoise", "denoise", "-o", tmp_path / "site")[2]
    assert "no model is called" in cli("web", "nobody", "-o", tmp_path / "site")[2]
    assert not (tmp_path / "site").exists()


def test_a_library_of_other_bytes_is_refused(tmp_path):
    for name in library.FILES:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(OptionError, match="is not the file of onnxruntime-web"):
        library.fetch(tmp_path / "ort", tmp_path)
    with pytest.raises(OptionError, match="cannot read"):
        library.fetch(tmp_path / "ort", tmp_path / "none")


@pytest.mark.parametrize("isolated", [True, False])
def test_the_server_sends_both_headers_or_none(tmp_path, isolated):
    (tmp_path / "a.wasm").write_bytes(b"1")
    with server(tmp_path, isolated=isolated) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        answer = urllib.request.urlopen(f"http://127.0.0.1:{running.server_port}/a.wasm")
        running.shutdown()
    assert answer.headers["Content-Type"] == "application/wasm"
    assert {name: answer.headers[name] for name in HEADERS} == (HEADERS if isolated else dict.fromkeys(HEADERS))


def test_a_taken_port_is_said(tmp_path):
    with server(tmp_path) as running, pytest.raises(OptionError, match="--port"):
        server(tmp_path, running.server_port)


def test_a_model_by_itself_is_refused(tmp_path):
    graph = Path(__file__).parents[2] / "models" / "denoise" / "model.onnx"
    lone = tmp_path / "lone.onnx"
    lone.write_bytes(graph.read_bytes())
    with pytest.raises(OptionError, match="impasto export"):
        make_site([str(lone)], tmp_path / "site")
