"""What a service of a given size takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from m6rec.cli.app import Device, Dtype, Foundation, Json, app, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.errors import ConfigError


@app.command()
def plan(
    *,
    users: Annotated[float, typer.Option(help="Users with a history, such as 1e9.")],
    items: Annotated[float, typer.Option(help="Items in the catalogue.")],
    qps: Annotated[float, typer.Option(help="Recommendations per second at the peak.")],
    history: Annotated[float, typer.Option(help="Events per user on average.")],
    candidates: Annotated[int | None, typer.Option(help="Items ranked per recommendation. [default: 100]")] = None,
    item_tokens: Annotated[float | None, typer.Option(help="Tokens of an item's text. [default: 20]")] = None,
    churn: Annotated[
        float | None, typer.Option(help="Share of the catalogue that is new or reworded per day. [default: 0.01]")
    ] = None,
    user_exponent: Annotated[
        float | None, typer.Option(help="Zipf exponent of how often users ask. [default: 0.8]")
    ] = None,
    item_exponent: Annotated[
        float | None, typer.Option(help="Zipf exponent of how often items occur. [default: 1.0]")
    ] = None,
    foundation: Foundation = None,
    cores: Annotated[int | None, typer.Option(help="Cores of a machine. [default: 32]")] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB of a machine that the service may use. [default: 128]")
    ] = None,
    utilisation: Annotated[float | None, typer.Option(help="Share of the cores to plan for. [default: 0.5]")] = None,
    price: Annotated[float | None, typer.Option(help="Price of a machine per hour, in any currency.")] = None,
    watts: Annotated[float | None, typer.Option(help="Watts of a machine.")] = None,
    grams_per_kwh: Annotated[float | None, typer.Option(help="Grams of CO₂ per kWh.")] = None,
    rates: Annotated[Path | None, typer.Option(help="Rates that --measure wrote; by default those of ours.")] = None,
    measure: Annotated[
        Path | None, typer.Option(help="Measure the rates of this machine first, and write them to this file.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    file: ConfigFile = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Estimates memory, disk, cache hits, arithmetic and machines for a service, from measured rates."""
    from m6rec import files
    from m6rec.foundation.checkpoint import load, model_config_of
    from m6rec.scale import measuring, planning

    if rates is not None and measure is not None:
        raise ConfigError("--rates and --measure were given; measure into a file first, then give it as --rates")
    options = {
        "serving.limits.num_retrieved": ("--candidates", candidates),
        "plan.load.item_tokens": ("--item-tokens", item_tokens),
        "plan.load.churn": ("--churn", churn),
        "plan.load.user_exponent": ("--user-exponent", user_exponent),
        "plan.load.item_exponent": ("--item-exponent", item_exponent),
        "plan.machine.cores": ("--cores", cores),
        "plan.machine.memory_gib": ("--memory", memory),
        "plan.machine.utilisation": ("--utilisation", utilisation),
        "plan.machine.price_per_hour": ("--price", price),
        "plan.machine.watts": ("--watts", watts),
        "plan.machine.grams_per_kwh": ("--grams-per-kwh", grams_per_kwh),
    }
    tree = settings(file, changes, options | of_foundation(foundation, device, dtype))
    load_ = planning.Load(
        users=users,
        items=items,
        qps=qps,
        history=history,
        candidates=tree.serving.limits.num_retrieved,
        assumed=tree.plan.load,
    )
    config = tree.foundation
    if measure is not None:
        found = measuring.measure(load(config.name, dtype=config.dtype, device=config.device))
        files.write(measure, json.dumps(asdict(found), indent=1) + "\n")
    else:
        found = planning.Rates.read(rates)
    made = planning.service_plan(load_, measuring.shape_of(model_config_of(config.name)), found, tree.plan.machine)
    say(made, as_json, "\n".join(_lines(made)))


def _lines(made: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in made.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {part}: {_number(number, name)}" for part, number in value.items())]
        else:
            lines.append(f"{name}: {value}")
    return lines


def _number(value: float, kind: str) -> str:
    """A number as people read it.

    >>> _number(1.5e12, "bytes on disk"), _number(0.25, "hit rates"), _number(1234.5, "flop")
    ('1.36 TiB', '0.25', '1.23e+03')
    """
    if kind.startswith("bytes"):
        for unit, size in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.3g} B"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
