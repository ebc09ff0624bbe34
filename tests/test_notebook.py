"""docs/quickstart.ipynb from its first cell to its last, on a small log and a tiny foundation."""

import ast
import os
import sys
from pathlib import Path

import pytest

from benchmarks import logs
from tests import running, tiny

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
NOTEBOOK = nbformat.read(running.ROOT / "docs" / "quickstart.ipynb", as_version=4)
QUICK = """
foundation.dtype = "float32"
init.ranking.min_steps = 2
retrieval.training.epochs = 1
"""


def test_no_outputs_are_committed():
    nbformat.validate(NOTEBOOK)
    for cell in NOTEBOOK.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter_client, of itself
def test_the_notebook_runs(tmp_path, monkeypatch):
    tiny.hf_folder("llama", tmp_path / "foundation")
    (events,) = logs.stars(tmp_path, num_events=500)
    Path(events).rename(tmp_path / "events.csv")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "config.toml").write_text(QUICK)
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = NOTEBOOK.copy()
    (parameters,) = (cell for cell in notebook.cells if cell.id == "parameters")
    for own, ours in (("smollm2-135m", str(tmp_path / "foundation")), ("8300", str(running.free_port()))):
        assert own in parameters.source
        parameters.source = parameters.source.replace(own, ours)
    done = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    told = {cell.id: "".join(_text(output) for output in cell.outputs) for cell in done.cells if "outputs" in cell}
    assert "nothing tuned yet" in told["init"]
    assert len(told["recommend"].splitlines()) == 5
    assert told["why"].strip()
    assert "Placement(" in told["why-not"]
    assert told["stop"].strip() == "0"
    first = told["recommend"].splitlines()[0].partition("  ")[2]
    assert first not in ast.literal_eval(told["event"])
    assert len(ast.literal_eval(told["event"])) == 5


def _text(output):
    return output.get("text") or output.get("data", {}).get("text/plain", "")
