"""``reproduce cost``: seconds and memory of a step of each row's model, beside the first row's."""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from momentumrnn.cli.benchmarking.machine import describe_machine
from momentumrnn.cli.benchmarking.measurement import ratio_with_quartiles
from momentumrnn.cli.benchmarking.memory import UnmeasuredError, peak_told_by
from momentumrnn.cli.benchmarking.turns import clock_of, time_in_turns, wait_for
from momentumrnn.cli.reproducing.steps import Steps
from momentumrnn.cli.reproducing.survey import recipe_of
from momentumrnn.cli.reproducing.synthetic import synthetic_batch
from momentumrnn.regular_files import read_regular
from momentumrnn.results.cost_records import Cost, costs_to_csv, read_costs
from momentumrnn.results.find import COST, COST_MACHINE
from momentumrnn.training.experiments import Panel, Row, load_experiment
from momentumrnn.training.files import write_atomically
from momentumrnn.training.plan import Plan
from momentumrnn.training.recipe import Recipe

REPEATS, SMOKE_REPEATS = 7, 2
# Whether it is a training step.
KINDS = (True, False)
MEASURED_AT_ONCE = 2
MODULE = "momentumrnn.cli.reproducing.cost_worker"


def cost_panels(plan: Plan) -> list[tuple[Panel, list[Row]]]:
    """The panels whose rows' cost is measured.

    Args:
        plan: Which experiments.
    """
    panels = [panel for name in plan.experiments for panel in load_experiment(name).panels]
    chosen = []
    for panel in panels:
        # The baseline stays, whatever is left out.
        rows = panel.all_rows()
        kept = [row for row in rows if plan.includes(row)]
        if "cost" in panel.shows and kept:
            chosen.append((panel, list(dict.fromkeys([rows[0], *kept]))))
    return chosen


def measure_cost(
    plan: Plan,
    out: Path,
    *,
    device: str,
    threads: int,
    told: Callable[[str], None],
    check: Callable[[], None],
) -> bool:
    """Measure what ``cost.csv`` does not hold yet, panel by panel.

    Args:
        plan: Which experiments.
        out: Where the table goes.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads.
        told: Called with a line before a panel is measured.
        check: Called between steps; raises where time is out.

    Returns:
        Whether something was measured.

    Raises:
        CheckpointError: The table that is there cannot be read.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    machine = describe_machine(device)
    costs = read_costs(out) if _same_conditions(out, machine) else {}
    measured = False
    for panel, members in cost_panels(plan):
        if all((panel.title, row.name) in costs for row in members):
            continue
        # Ratios are between models that were measured side by side: those that are there are measured again.
        members = [row for row in panel.all_rows() if row in members or (panel.title, row.name) in costs]
        told(f"cost: {panel.title}, {len(members)} models side by side")
        kept = {key: cost for key, cost in costs.items() if cost.panel != panel.title}
        found = _measure_panel(plan, panel.title, members, device, threads, check)
        costs = kept | {(cost.panel, cost.row): cost for cost in found}
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / COST_MACHINE, json.dumps({**machine, "smoke": plan.smoke}, indent=2) + "\n")
        write_atomically(out / COST, costs_to_csv(costs.values()))
        measured = True
    return measured


def _measure_panel(
    plan: Plan, title: str, rows: Sequence[Row], device: str, threads: int, check: Callable[[], None]
) -> list[Cost]:
    recipes = [recipe_of(plan, row) for row in rows]
    batches = [synthetic_batch(recipe, device) for recipe in recipes]
    steps = [Steps(recipe, device) for recipe in recipes]
    repeats = SMOKE_REPEATS if plan.smoke else REPEATS
    pairs = list(zip(steps, batches, strict=True))
    how: dict[str, Any] = {"wait": wait_for(device), "told": check, "clock": clock_of(device)}
    trained = time_in_turns([partial(one.train, batch) for one, batch in pairs], repeats, **how)
    evaluated = time_in_turns([partial(one.evaluate, batch) for one, batch in pairs], repeats, **how)
    del steps, pairs
    wanted = [(recipe, training) for recipe in recipes for training in KINDS]
    # Side by side: their times do not matter.
    pool, peaks = ThreadPoolExecutor(MEASURED_AT_ONCE), []
    try:
        for peak in pool.map(lambda one: _peak(*one, device=device, threads=threads), wanted):
            # Ctrl-C has ended that process as well.
            check()
            peaks.append(peak)
    finally:
        pool.shutdown(cancel_futures=True)
    costs = []
    for number, row in enumerate(rows):
        times = []
        for taken in (trained, evaluated):
            times.append(ratio_with_quartiles(taken[number], [1.0] * repeats)[0])
            times.append(ratio_with_quartiles(taken[number], taken[0])[0])
        costs.append(Cost(title, row.name, *times, *peaks[2 * number : 2 * number + 2]))
    return costs


def _peak(recipe: Recipe, training: bool, *, device: str, threads: int) -> float:
    job = {"recipe": recipe.to_toml(), "device": device, "threads": threads, "training": training}
    try:
        return float(peak_told_by(MODULE, job, recipe.model.name))
    except UnmeasuredError:
        return math.nan


def _same_conditions(out: Path, machine: dict[str, str]) -> bool:
    """Whether a table that is there was measured on the same machine with the same versions."""
    path = out / COST_MACHINE
    try:
        stored = json.loads(read_regular(path))
    except (OSError, ValueError):
        return False
    changing = ("date", "load before the start")
    return all(stored.get(key) == value for key, value in machine.items() if key not in changing)
