"""A tuned task → a device folder: the model as two ONNX graphs, its tokenizer, and a manifest with checksums.

The graphs are traced from ``Model`` and ``TaskAdapter`` themselves, so neither is described twice. What tuning adds
(prompts, segment embeddings, adapters, option rows, the base of the score) is part of the upper graph.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from m6rec import assets, device
from m6rec.device import ADAPTERS, BUNDLE, CHECKSUM, FORMAT, LOWER, MANIFEST, TOKENIZER, UPPER, Manifest
from m6rec.errors import ConfigError, ExtraError
from m6rec.features.interactions import EVENT_FEATURES, FEATURES, InteractionStore
from m6rec.files import new_folder
from m6rec.foundation.attention import Dense
from m6rec.readouts import ScoreModel
from m6rec.tasks.words import words
from m6rec.text.records import record_of
from m6rec.types import SLOTS, Event, Item, User

DTYPES = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
"""Bits of a large weight."""
STEPS = 4
OPSET = 20
LEAST_WEIGHTS = 1 << 15
"""Numbers of a matrix from which on it is rounded; smaller ones are not worth their error."""
BLOCK = 32
"""Weights that share a scale; 64 and 128 save 4 % of the folder and cost half as much error again."""
EIGHT_BIT_PRODUCTS = 4
"""``accuracy_level`` of MatMulNBits: activations are rounded to 8 bits too, with a scale for each block of a token."""
ALIGNED = 64
"""Bytes that weights in a file of their own begin at a multiple of."""
MOST_UNPACKED = 1 << 24
"""Large weights of a half, up to which it is rounded where it is kept alone, and takes 4 bytes each in memory."""

Progress = Callable[[int, int], None]


def export(
    tuned: ScoreModel,
    folder: Path,
    *,
    dtype: str = "int8",
    items: Sequence[Item] = (),
    interactions: InteractionStore | None = None,
    states: bool = True,
    lower: bool = True,
    since: Manifest | None = None,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Writes a device folder, whole or not at all.

    Args:
        tuned: A ranking task on a foundation in float32.
        folder: A new folder.
        dtype: Of large weights: "float32", "float16", or "int8" or "int4" with a scale for each ``BLOCK`` of them.
        items: Items that the device knows from the start; see ``send``.
        interactions: Everything so far; needed with ``items``.
        states: Whether the items come with the states of their texts.
        lower: Whether the device can read texts. If not, the folder is small, whatever the model, and its items come
            with the states of all that can be said of them.
        since: The manifest of the folder that devices have. Files that are the same are left out, so that a device
            is sent no more than what has changed (``device.update_folder``): after another tuning the adapters.
        progress: Called with (done, total) of its steps.

    Raises:
        ConfigError: The folder exists, or the type can't be exported.
        ExtraError: onnx is not installed.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} can't be exported; choose one of {', '.join(DTYPES)}")
    model = tuned.foundation.model
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ConfigError(f"the foundation is in {model.dtype} on {model.device}; load it with float32 on cpu")
    if folder.exists():
        raise ConfigError(f"{folder} exists already; give a new folder, or remove it first")
    if not states and not lower:
        raise ConfigError("a device without the lower half can't read texts; send it their states, or that half")
    split = tuned.cache.config
    with new_folder(folder) as partial:
        progress(0, STEPS)
        if lower:
            _write(_Lower(tuned), partial / LOWER, dtype)
            tuned.foundation.tokenizer.save(partial / TOKENIZER)
        progress(1, STEPS)
        _write(_Upper(tuned), partial / UPPER, dtype)
        progress(2, STEPS)
        if items:
            assert interactions is not None, "items come with what happened to them"
            send(tuned, items, interactions, partial / device.ITEMS, states=states, event_texts=not lower)
        progress(3, STEPS)
        source, made_from = tuned.foundation.source, tuned.fingerprint()
        manifest = Manifest(
            format=FORMAT,
            m6rec=version("m6rec"),
            task=tuned.config.task,
            domain=tuned.config.domain,
            rule=None if tuned.domain.rule is None else tuned.domain.rule.to_json(),
            foundation=Path(source).name,
            model=model.id,
            tuning=tuned.adapter.digest(),
            wording=made_from.wording,
            features=made_from.features,
            licence=assets.describe(source).licence if source in assets.names() else "that of the foundation",
            dtype=dtype,
            opset=OPSET,
            depth=split.depth,
            keep=split.keep,
            width=model.config.width,
            files={
                file.name: {"bytes": file.stat().st_size, "sha256": device.file_sha256(file)}
                for file in sorted(partial.iterdir())
            },
        )
        for name in manifest.files:
            if since and since.files.get(name) == manifest.files[name]:
                (partial / name).unlink()
        (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    progress(STEPS, STEPS)
    return manifest


def send(
    tuned: ScoreModel,
    items: Sequence[Item],
    interactions: InteractionStore,
    file: Path,
    *,
    states: bool = True,
    event_texts: bool = False,
    user: User | None = None,
) -> None:
    """Writes items for ``Device.receive``: their texts, popularity counts and cached states.

    Args:
        tuned: The ranking model of the device.
        items: The items.
        interactions: Everything so far; only popularity counts and the set of strengths are exported.
        file: Written atomically.
        states: Whether to include the states of the items' texts, so that the device need not encode them.
        event_texts: Whether to include also those of events with the items, one for each value.
        user: The user whose profile a browser needs, as it can't verbalise one; None for none.
    """
    task, domain, values = tuned.task, tuned.domain, interactions.values
    segments = [segment for item in items for segment in task.candidate(item, domain) if states]
    if event_texts:
        events = [(Event("", item.id, 0, value), item) for item in items for value in values]
        segments += [task.event_text(event, item, domain) for event, item in events]
        segments += task.profile(user, domain) if user else ()
    texts = dict.fromkeys(segment.text for segment in segments)
    table = tuned.cache.fetch(texts)
    popularity = interactions.popularity(item.id for item in items)
    bundle = {
        "format": FORMAT,
        "model": tuned.foundation.model.id,
        "depth": tuned.cache.config.depth,
        "keep": tuned.cache.config.keep,
        "items": [record_of(item) for item in items],
        "total": popularity.total,
        "popularity": popularity.items,
        "scales": popularity.scales,
        "words": words(task, domain, items, values, user),
        "texts": list(texts),
        "counts": [table.places[text][1] for text in texts],
    }
    tokens: NDArray[np.float32] = table.tokens_TD.float().cpu().numpy()
    text = json.dumps(bundle)
    partial = file.with_name(f".{file.name}.partial")
    save_file({"states_TD": tokens}, partial, metadata={BUNDLE: text, CHECKSUM: device.bundle_checksum(text, tokens)})
    partial.replace(file)


class _Lower(nn.Module):
    """Token ids of one text → its kept states. A text is read alone, so its states never depend on another's."""

    def __init__(self, tuned: ScoreModel) -> None:
        super().__init__()
        self.model, self.depth, self.keep = tuned.foundation.model, tuned.cache.config.depth, tuned.cache.config.keep

    def forward(self, ids: Tensor) -> Tensor:
        """``ids`` [L] → states [keep or L, D]."""
        states_LD = self.model.lower(ids[None], self.depth)[0]
        return states_LD[-self.keep :] if self.keep else states_LD

    def example(self) -> dict[str, Tensor]:
        """Inputs to trace with."""
        return {"ids": torch.arange(5)}


class _Upper(nn.Module):
    """States of a context and of candidates → probability of the last class for each candidate.

    The last token of a candidate answers; what the others are is read only, so in the last layer their output is not
    computed. A token sees what stands before it of the context and of its own candidate.
    """

    def __init__(self, tuned: ScoreModel) -> None:
        super().__init__()
        self.model, self.adapter = tuned.foundation.model, tuned.adapter
        self.depth, self.end, self.bidirectional = tuned.upper.depth, tuned.upper.end, tuned.upper.bidirectional

    def forward(
        self,
        states: Tensor,
        slots: Tensor,
        owners: Tensor,
        positions: Tensor,
        event_features: Tensor,
        event_tokens: Tensor,
        last_states: Tensor,
        last_slots: Tensor,
        last_positions: Tensor,
        features: Tensor,
    ) -> Tensor:
        """``device._inputs`` → scores [C]."""
        adapter, model = self.adapter, self.model
        states_TD, asked_CD = states + adapter.slots_SD[slots], last_states + adapter.slots_SD[last_slots]
        if adapter.event_encoder is not None:
            states_TD = states_TD.index_add(0, event_tokens, adapter.encode_events(event_features[None])[0])
        prompts_PD = adapter.prompts_PD
        count, skip = len(prompts_PD), len(prompts_PD) + states.shape[0]
        hidden_1LD = torch.cat([prompts_PD, states_TD, asked_CD])[None]
        owner_L = torch.cat([torch.zeros(count, dtype=torch.long), owners, 1 + torch.arange(last_states.shape[0])])
        position_L = torch.cat([torch.arange(count), positions + count, last_positions + count])
        seen_LL = position_L <= position_L[:, None]
        if self.bidirectional:
            seen_LL = seen_LL | ((owner_L == 0) & (owner_L == 0)[:, None])
        mask_1LL = (seen_LL & ((owner_L == 0) | (owner_L == owner_L[:, None])))[None]
        positions_1L, last = position_L[None], self.end - 1
        attention = Dense(positions_1L, mask_1LL)
        hidden_1LD = model.run(hidden_1LD, positions_1L, attention, first=self.depth, last=last, hook=adapter)
        attention = Dense(positions_1L, mask_1LL[:, skip:], skip)
        hidden_1CD = model.run(hidden_1LD, positions_1L, attention, first=last, last=self.end, hook=adapter)
        return adapter.score(model.finish(hidden_1CD)[0], features).softmax(-1)[:, -1]

    def example(self) -> dict[str, Tensor]:
        """Inputs to trace with: three tokens of context, two behaviours, and two candidates of two tokens."""
        width = self.model.config.width
        return {
            "states": torch.randn(5, width),
            "slots": torch.arange(5) % len(SLOTS),
            "owners": torch.tensor([0, 0, 0, 1, 2]),
            "positions": torch.tensor([0, 1, 2, 3, 3]),
            "event_features": torch.randn(2, len(EVENT_FEATURES) if self.adapter.event_encoder is not None else 0),
            "event_tokens": torch.tensor([1, 2]),
            "last_states": torch.randn(2, width),
            "last_slots": torch.zeros(2, dtype=torch.long),
            "last_positions": torch.tensor([4, 4]),
            "features": torch.randn(2, len(FEATURES) if self.adapter.base is not None else 0),
        }


def _write(half: _Lower | _Upper, file: Path, dtype: str) -> None:
    """Writes one half as a graph with weights of ``dtype``."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - by torch
    except ImportError as error:
        raise ExtraError("m6rec export", "edge") from error
    graph = _traced(half)
    if DTYPES[dtype] < 32:
        _round(graph, DTYPES[dtype])
    # What differs between runs goes, as the same model must have the same checksum.
    del graph.graph.metadata_props[:]
    used = {node.domain for node in graph.graph.node}
    opsets = [one for one in graph.opset_import if one.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(opsets)
    if isinstance(half, _Upper):
        _part(graph, file.with_name(ADAPTERS))
    onnx.save(graph, file)


def _traced(half: _Lower | _Upper) -> Any:
    """The graph of one half in fp32; tokens, behaviours and candidates may be other numbers than the example's."""
    example = half.example()
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it misses torchvision
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own deprecations
            program = torch.onnx.export(
                half.eval(),
                kwargs=example,
                input_names=list(example),
                output_names=["states" if isinstance(half, _Lower) else "scores"],
                dynamic_shapes={name: {0: torch.export.Dim.DYNAMIC} for name in example},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    assert program is not None
    graph = program.model_proto
    for node in graph.graph.node:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
    _transpose(graph)
    return graph


def _transpose(graph: Any) -> None:
    """Transposes weights that several layers share, which the exporter would leave to the device."""
    from onnx import numpy_helper

    weights = {one.name: one for one in graph.graph.initializer if len(one.dims) == 2}
    for node in [node for node in graph.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        matrix = numpy_helper.to_array(weights[node.input[0]])
        graph.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(matrix.T), node.output[0]))
        graph.graph.node.remove(node)
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    needed = {name for node in graph.graph.node for name in node.input}
    kept = [one for one in graph.graph.initializer if one.name in needed]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)


def _part(graph: Any, file: Path) -> None:
    """Moves what a tuning adds to a file of its own, so that another tuning leaves the graph as it is.

    What the exporter has computed of the tuning ahead of time has no name that tells; so small numbers move as well.
    """
    from onnx import TensorProto, numpy_helper

    content = bytearray()
    for one in graph.graph.initializer:
        array = numpy_helper.to_array(one)
        computed = array.dtype.kind == "f" and 1 < array.size < LEAST_WEIGHTS and not one.name.startswith("model.")
        if array.dtype == np.int64 or not (computed or one.name.startswith("tuning.")):
            continue
        content += bytes(-len(content) % ALIGNED)
        told = {"location": file.name, "offset": len(content), "length": array.nbytes}
        content += array.tobytes()
        one.ClearField("raw_data")
        one.ClearField("float_data")
        one.data_location = TensorProto.EXTERNAL
        for key, value in told.items():
            one.external_data.add(key=key, value=str(value))
    file.write_bytes(content)


def _round(graph: Any, bits: int) -> None:
    """Rounds the large matrices to 16, 8 or 4 bits; a table of embeddings to 16 or 8.

    A small half is rounded where it is kept, and multiplied as it is in fp32: runtimes that multiply rounded weights
    differ in what they make of activations, and are slower where they don't round these too. A large half has
    no room for that. There scales of activations belong to one token's numbers, so no score depends on another's.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = {one.name: one for one in graph.graph.initializer}
    large = {name for name, one in weights.items() if len(one.dims) == 2 and np.prod(one.dims) >= LEAST_WEIGHTS}
    unpacks = sum(np.prod(weights[name].dims) for name in large) <= MOST_UNPACKED
    nodes: list[Any] = []
    stored: dict[str, NDArray[Any]] = {}
    for node in graph.graph.node:
        place = {"Gather": 0, "MatMul": 1}.get(node.op_type)
        if place is None or node.input[place] not in large:
            nodes.append(node)
            continue
        name, result = node.input[place], node.output[0]
        matrix = numpy_helper.to_array(weights[name])
        rounded, scale, whole = f"{name}.rounded", f"{name}.scale", f"{name}.whole"
        if bits == 16 and node.op_type == "Gather":
            stored[rounded] = matrix.astype(np.float16)
            nodes += [
                helper.make_node("Gather", [rounded, node.input[1]], [f"{result}.rounded"]),
                helper.make_node("Cast", [f"{result}.rounded"], [result], to=TensorProto.FLOAT),
            ]
        elif bits == 16:
            if rounded not in stored:
                stored[rounded] = matrix.astype(np.float16)
                nodes.append(helper.make_node("Cast", [rounded], [whole], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("MatMul", [node.input[0], whole], [result]))
        elif node.op_type == "Gather":  # the table of embeddings
            scale_V1, rounded_VD = _rounded(matrix, 8)
            stored |= {rounded: rounded_VD.astype(np.int8), scale: scale_V1}
            nodes += [
                helper.make_node("Gather", [rounded, node.input[1]], [f"{result}.rounded"]),
                helper.make_node("Cast", [f"{result}.rounded"], [f"{result}.cast"], to=TensorProto.FLOAT),
                helper.make_node("Gather", [scale, node.input[1]], [f"{result}.scale"]),
                helper.make_node("Mul", [f"{result}.cast", f"{result}.scale"], [result]),
            ]
        elif unpacks and not matrix.shape[0] % BLOCK:
            if rounded not in stored:
                nodes += _unpacking(matrix, bits, name, stored)
            nodes.append(helper.make_node("MatMul", [node.input[0], whole], [result]))
        else:
            inputs, outputs = matrix.shape
            padded_OI = np.pad(matrix.T, ((0, 0), (0, -inputs % BLOCK)))
            scale_OB1, rounded_OBI = _rounded(padded_OI.reshape(outputs, -1, BLOCK), bits)
            shifted_OBI = (rounded_OBI + 2 ** (bits - 1)).astype(np.uint8)
            if bits == 4:  # two of a block in a byte, the first in its lower half
                shifted_OBI = shifted_OBI[..., ::2] | (shifted_OBI[..., 1::2] << 4)
            stored |= {rounded: shifted_OBI, scale: scale_OB1[..., 0]}
            nodes.append(
                helper.make_node(
                    "MatMulNBits",
                    [node.input[0], rounded, scale],
                    [result],
                    domain="com.microsoft",
                    K=inputs,
                    N=outputs,
                    bits=bits,
                    block_size=BLOCK,
                    accuracy_level=EIGHT_BIT_PRODUCTS,
                )
            )
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    _drop_unused(graph)
    graph.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _unpacking(matrix_IO: NDArray[np.float32], bits: int, name: str, stored: dict[str, NDArray[Any]]) -> list[Any]:
    """Nodes that make ``name.whole`` of a rounded matrix, which runtimes do once, when they open the graph."""
    from onnx import TensorProto, helper

    inputs, outputs = matrix_IO.shape
    blocks_OBI = matrix_IO.T.reshape(outputs, -1, BLOCK)
    scale_OB1, rounded_OBI = _rounded(blocks_OBI, bits)
    rounded_BIO = rounded_OBI.transpose(1, 2, 0)
    stored[f"{name}.scale"] = np.ascontiguousarray(scale_OB1.transpose(1, 2, 0))

    def node(kind: str, inputs: Sequence[str], part: str, **attributes: Any) -> Any:
        names = [one if one in ("sixteen", "eight") else f"{name}.{one}" for one in inputs]
        return helper.make_node(kind, names, [f"{name}.{part}"], **attributes)

    nodes = []
    if bits == 4:  # the first half of a block in the lower halves of bytes
        shifted_BIO = (rounded_BIO + 8).astype(np.uint8)
        half = BLOCK // 2
        stored |= {
            f"{name}.rounded": shifted_BIO[:, :half] | (shifted_BIO[:, half:] << 4),
            "sixteen": np.array(16, np.float32),
            "eight": np.array(8, np.float32),
        }
        nodes += [
            node("Cast", ["rounded"], "bytes", to=TensorProto.FLOAT),
            node("Div", ["bytes", "sixteen"], "sixteenths"),
            node("Floor", ["sixteenths"], "upper"),
            node("Mul", ["upper", "sixteen"], "moved"),
            node("Sub", ["bytes", "moved"], "lower"),
            node("Concat", ["lower", "upper"], "both", axis=1),
            node("Sub", ["both", "eight"], "cast"),
        ]
    else:
        stored[f"{name}.rounded"] = np.ascontiguousarray(rounded_BIO).astype(np.int8)
        nodes.append(node("Cast", ["rounded"], "cast", to=TensorProto.FLOAT))
    stored[f"{name}.shape"] = np.array([inputs, outputs], np.int64)
    return [*nodes, node("Mul", ["cast", "scale"], "scaled"), node("Reshape", ["scaled", "shape"], "whole")]


def _rounded(weights: NDArray[np.float32], bits: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(a scale for each last axis, whole numbers, of 8 bits from -127 to 127), whose product is about ``weights``."""
    scale: NDArray[np.float32] = np.abs(weights).max(-1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    return scale, np.rint(weights / np.where(scale, scale, 1))
