"""A tiny tuned task, the log it is asked of, and device folders made from it, each once a process."""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from m6rec import device
from m6rec.device import MANIFEST
from m6rec.domains import domain as domains
from m6rec.edge import export as module
from m6rec.features.interactions import InteractionStore
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.tasks import task as tasks
from m6rec.text.batch import Example
from m6rec.types import Event, Item, User
from tests import tiny

MOVIES = domains.named("movielens")
TITLES = ("Sea", "The long way home", "Ash", "On stone", "He", "Tin men", "Amélie — 天使愛美麗", "<|im_end|> the end")
ITEMS = {f"i{n}": Item(f"i{n}", title, ("Drama",) * (n % 3), {"year": 1990 + n}) for n, title in enumerate(TITLES)}
USERS = {f"u{n}": User(f"u{n}", {"age": 30 + n, "gender": "F", "occupation": "none"} if n else {}) for n in range(4)}
LOG = [Event(f"u{n % 4}", f"i{(n * n + n % 3) % 8}", 50 * n, float(1 + n * 7 % 5)) for n in range(36)]

_folders = TemporaryDirectory(prefix="m6rec-pocket-")
_trace, _traces = module._traced, {}


def _traced_once(half):
    """The graph of a half, traced once a process for the same weights and shape, as it takes five seconds."""
    of_tuning = () if isinstance(half, module._Lower) else (half.adapter.digest(), half.end, half.bidirectional)
    key = (type(half), half.model.id, half.depth, getattr(half, "keep", None), of_tuning)
    if key not in _traces:
        _traces[key] = _trace(half)
    graph = onnx.ModelProto()
    graph.CopyFrom(_traces[key])
    return graph


module._traced = _traced_once


def tuned(*, seed: int = 0, **options: Any) -> ScoreModel:
    """A ranking task as if it had been trained; two of four layers are the upper ones unless told otherwise."""
    config = TaskModelConfig(**{"task": "like", "domain": "movielens", "foundation": "tiny", "depth": 2, **options})
    made = ScoreModel.create(config, tiny.foundation(seed=seed), seed=seed)
    tiny.as_if_trained(made.adapter.parameters(), seed=seed)
    return made


def rows(task: str = "like") -> list[Example]:
    """All questions of the log."""
    return tasks.build_examples(tasks.named(task), LOG, USERS, ITEMS, MOVIES, np.ones(len(LOG), np.bool_))[0]


def interactions() -> InteractionStore:
    """The whole log."""
    return InteractionStore(ITEMS, MOVIES.feedback).update_all(LOG)


@cache
def exported(dtype: str = "float32", **options: Any) -> tuple[ScoreModel, Path]:
    """(the task, its device folder without items), which nobody may change."""
    made = tuned(**options)
    folder = Path(_folders.name, str(len(list(Path(_folders.name).iterdir()))))
    module.export(made, folder, dtype=dtype)
    return made, folder


def copied(folder: Path) -> tuple[ScoreModel, Path]:
    """(the task, a copy of the device folder), which may be changed."""
    made, original = exported()
    return made, Path(shutil.copytree(original, folder))


def reseal(folder, **changes):
    """Writes the card anew, by the files that are there."""
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": device.file_sha256(file)}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST
    }
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": files} | changes))


def of_features(file, number):
    """Makes an upper graph one that takes so many statistics, of which it reads as many as it did, over and over."""
    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    features = next(one for one in graph.input if one.name == "features")
    width = features.type.tensor_type.shape.dim[1]
    for node in graph.node:
        node.input[:] = ["whole" if name == "features" else name for name in node.input]
    times = -(-width.dim_value // number)
    ends = [
        onnx.numpy_helper.from_array(np.array([value]), name) for name, value in (("from", 0), ("to", width.dim_value))
    ]
    graph.initializer.extend([*ends, onnx.numpy_helper.from_array(np.array([1]), "axis")])
    graph.node.insert(0, onnx.helper.make_node("Concat", ["features"] * times, ["many"], axis=1))
    graph.node.insert(1, onnx.helper.make_node("Slice", ["many", "from", "to", "axis"], ["whole"]))
    width.dim_value = number
    onnx.save(model, file)
