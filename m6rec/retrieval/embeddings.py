"""Vectors of items and users, from the states of the items' texts. Inference only, in plain numpy.

A raw state is dominated by a few directions that all texts share. Whitening, an affine map fitted once on a catalogue,
takes them away; a small network, trained on who liked what (``retrieval.training``), turns what is left towards taste:

    item = unit(head(whitened state) + residual)        user = unit(Σ decayᵃ · item), a = likes since

The residual is learned for each item of the training log, and is zero for any other, so one inner product compares
warm and new items. A vector depends on its own item alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec.errors import AssetError, DataError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FILE = "embeddings.safetensors"
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True, eq=False)
class Whitening:
    """An affine map that takes the states of a catalogue to mean 0 and covariance 1 (nearly, see ``fit``).

    Attributes:
        mean_D: Mean state.
        map_DD: To the principal axes, the widest first, each divided by its deviation.
    """

    mean_D: Floats
    map_DD: Floats

    @classmethod
    def fit(cls, states_ID: Floats) -> Whitening:
        """The map of a catalogue.

        The covariance is shrunk towards a multiple of the identity (Ledoit & Wolf, J. Multivariate Analysis, 2004), and
        at least by one item's share: hardly, where there are many items a dimension; and so far that it is
        well-conditioned, where there are fewer.

        Raises:
            DataError: There is no item, or a state is not finite.
        """
        if not len(states_ID) or not np.isfinite(states_ID).all():
            raise DataError(
                f"whitening needs items with finite states, but was given {len(states_ID)}, of which "
                f"{int(np.isfinite(states_ID).all(1).sum())} are finite; give the states of a whole catalogue"
            )
        num_items, width = states_ID.shape
        mean_D = states_ID.mean(0, dtype=np.float64)
        covariance_DD = np.zeros((width, width))
        fourth = 0.0  # Σ ‖x‖⁴
        for first in range(0, num_items, _ROWS_AT_ONCE):
            centred_ND = states_ID[first : first + _ROWS_AT_ONCE] - mean_D
            covariance_DD += centred_ND.T @ centred_ND
            fourth += float(((centred_ND**2).sum(1) ** 2).sum())
        covariance_DD /= num_items
        scale = float(np.trace(covariance_DD)) / width
        distance = float(((covariance_DD - scale * np.eye(width)) ** 2).sum())
        noise = (fourth / num_items - float((covariance_DD**2).sum())) / num_items
        share = min(1.0, max(noise / distance, 1 / num_items)) if distance > 0 else 1.0
        value_D, axes_DD = np.linalg.eigh((1 - share) * covariance_DD + share * scale * np.eye(width))
        scale_D = 1 / np.sqrt(value_D[::-1]) if scale > 0 else np.zeros(width)  # equal states have no direction
        return cls(mean_D.astype(np.float32), (axes_DD[:, ::-1] * scale_D).astype(np.float32))

    def __call__(self, states_ID: Floats) -> Floats:
        """Whitened states, each scaled to length √D, as the head takes them."""
        return unit((states_ID - self.mean_D) @ self.map_DD) * np.float32(np.sqrt(len(self.mean_D)))


@dataclass(frozen=True, eq=False)
class Head:
    """A residual network of one hidden layer: skip + SiLU(x · inner + bias) · outer.

    Attributes:
        skip_DE: Linear part.
        inner_DH: Into the hidden layer.
        bias_H: Its bias.
        outer_HE: Out of it.
    """

    skip_DE: Floats
    inner_DH: Floats
    bias_H: Floats
    outer_HE: Floats

    @classmethod
    def untrained(cls, width: int, embed_width: int) -> Head:
        """The head that leaves the ``embed_width`` widest axes of a whitened state as they are."""
        nothing = np.zeros((width, 0), np.float32), np.zeros(0, np.float32), np.zeros((0, embed_width), np.float32)
        return cls(np.eye(width, embed_width, dtype=np.float32), *nothing)

    def __call__(self, whitened_ID: Floats) -> Floats:
        """From ``Whitening`` to [I, E], of any length."""
        hidden_IH = whitened_ID @ self.inner_DH + self.bias_H
        hidden_IH /= 1 + np.exp(-np.clip(hidden_IH, -80, None))
        result_IE = whitened_ID @ self.skip_DE + hidden_IH @ self.outer_HE
        return result_IE.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """How an item becomes a vector, and what a user liked becomes one.

    Attributes:
        whitening: Of the catalogue it was trained on.
        head: Of the whitened state.
        residuals: Row of each item that has a learned residual, by id.
        residual_IE: What is added to the head's.
        decay: What a like weighs for each later like of its user.
    """

    whitening: Whitening
    head: Head
    residuals: dict[str, int]
    residual_IE: Floats
    decay: float

    @classmethod
    def untrained(cls, states_ID: Floats, embed_width: int, decay: float) -> Embeddings:
        """Whitened states of a catalogue, without a head or residuals."""
        width = states_ID.shape[1]
        nothing_0E = np.zeros((0, min(width, embed_width)), np.float32)
        head = Head.untrained(width, nothing_0E.shape[1])
        return cls(Whitening.fit(states_ID), head, {}, nothing_0E, decay)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.head.skip_DE.shape[1])

    def item_vectors(self, ids: Sequence[str], states_ID: Floats) -> Floats:
        """Unit vectors of items, float32 [I, E], by their ids and the states of their texts."""
        result_IE = np.zeros((len(ids), self.width), np.float32)
        for first in range(0, len(ids), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            result_IE[part] = self.head(self.whitening(states_ID[part]))
        known = [(place, row) for place, item in enumerate(ids) if (row := self.residuals.get(item)) is not None]
        if known:
            places, rows = np.array(known).T
            result_IE[places] += self.residual_IE[rows]
        return unit(result_IE)

    def digest(self) -> str:
        """A short digest of all that makes vectors."""
        digest = hashlib.blake2b(json.dumps([self.decay, self.residuals]).encode(), digest_size=16)
        for name, array in self._arrays().items():
            digest.update(f"{name}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes ``embeddings.safetensors``, atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{FILE}.partial"
        told = {"ids": json.dumps(list(self.residuals)), "decay": repr(self.decay)}
        save_file(self._arrays(), str(partial), metadata=told)
        os.replace(partial, folder / FILE)

    def _arrays(self) -> dict[str, Floats]:
        arrays = {"whitening.mean_D": self.whitening.mean_D, "whitening.map_DD": self.whitening.map_DD}
        arrays |= {f"head.{name}": getattr(self.head, name) for name in Head.__dataclass_fields__}
        arrays["residual_IE"] = self.residual_IE
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def load(folder: Path) -> Embeddings:
    """Reads what ``Embeddings.save`` wrote. Raises AssetError where the file is not readable."""
    try:
        with safe_open(folder / FILE, "np") as file:
            told = file.metadata() or {}
            ids, decay = json.loads(told["ids"]), float(told["decay"])
            array = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head = Head(*(array[f"head.{name}"] for name in Head.__dataclass_fields__))
        whitening = Whitening(array["whitening.mean_D"], array["whitening.map_DD"])
        if array["residual_IE"].shape != (len(ids), head.skip_DE.shape[1]):
            raise ValueError(f"{len(ids)} items, but residuals of shape {array['residual_IE'].shape}")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AssetError(f"{folder / FILE} holds no readable embeddings ({error}); tune the task again") from error
    return Embeddings(whitening, head, {item: row for row, item in enumerate(ids)}, array["residual_IE"], decay)


def user_vectors(vectors_IE: Floats, likes: Sequence[Ints], decay: float) -> Floats:
    """Unit vectors of users, float32 [U, E]: sums of the vectors of what each liked, each decayed by later likes.

    Args:
        vectors_IE: Of items.
        likes: For each user the rows of what they liked, oldest first; what was liked twice counts once, at its latest.
            Nothing liked gives the zero vector.
        decay: What a like weighs for each later one, above 0, at most 1.
    """
    result_UE = np.zeros((len(likes), vectors_IE.shape[1]), np.float32)
    for row_E, liked in zip(result_UE, likes, strict=True):
        latest_first = [*dict.fromkeys(np.flip(liked).tolist())]
        if latest_first:
            row_E[:] = (decay ** np.arange(len(latest_first))).astype(np.float32) @ vectors_IE[latest_first]
    return unit(result_UE)


def unit(rows_NE: NDArray[np.floating]) -> Floats:
    """The rows, each of length 1; a row of zeros stays as it is."""
    length_N1 = np.linalg.norm(rows_NE, axis=1, keepdims=True)
    scaled_NE = rows_NE / np.where(length_N1 > 0, length_N1, 1)
    return scaled_NE.astype(np.float32, copy=False)
