"""Result tables of a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from hwdse.analysis.sensitivity import Sensitivity
from hwdse.cost import provenance
from hwdse.cost.resources import resources_ms
from hwdse.cost.roofline import layer_bound
from hwdse.errors import RunFolderError
from hwdse.files import read_csv
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.pareto import non_dominated
from hwdse.reason import reason_of
from hwdse.search.surrogate import HarmModel
from hwdse.study.device import LOSS, DeviceProblem
from hwdse.study.measure import Measured, SchemeState

__all__ = [
    "config_id",
    "costs_table",
    "front_table",
    "interactions_table",
    "layers_table",
    "load_sensitivity",
    "measured_table",
    "predicted_table",
    "resources_table",
    "roofline_table",
    "sensitivity_table",
]

_Z = 1.96
_EVIDENCE = 3.0


def config_id(bits: str) -> str:
    """Return a short name of a configuration: the same for the same bits.

    >>> config_id("W8A8 W4A8") == config_id("W8A8 W4A8"), len(config_id("W8A8"))
    (True, 8)
    """
    return sha256(bits.encode()).hexdigest()[:8]


def layers_table(graph: LayerGraph) -> pd.DataFrame:
    """Return one row per layer, in execution order."""
    rows = [
        {
            "layer": layer.name,
            "group": graph.groups[g].name,
            "op_class": layer.op_class,
            "macs": layer.macs,
            "weight_count": layer.weight_count,
            "bias_count": layer.bias_count,
            "input": layer.input,
            "output": layer.output,
            "input_shape": _shape(layer.input_shape),
            "output_shape": _shape(layer.output_shape),
            "weight_shape": _shape(layer.weight_shape),
            "stride": _shape(layer.stride),
            "groups": layer.groups,
        }
        for layer, g in zip(graph.layers, graph.group_of, strict=True)
    ]
    return pd.DataFrame(rows)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def sensitivity_table(sensitivities: Mapping[str, Sensitivity]) -> pd.DataFrame:
    """Return one row per (scheme, group, candidate) with a column per method."""
    rows = [
        {
            "scheme": scheme,
            "group": group,
            "candidate": str(candidate),
            **{method: float(scores[g, c]) for method, scores in sensitivity.scores.items()},
            "samples": sensitivity.samples,
        }
        for scheme, sensitivity in sensitivities.items()
        for g, group in enumerate(sensitivity.groups)
        for c, candidate in enumerate(sensitivity.candidates)
    ]
    return pd.DataFrame(rows)


def load_sensitivity(
    path: Path,
    scheme: str,
    *,
    groups: tuple[str, ...],
    candidates: tuple[Precision, ...],
    methods: tuple[str, ...],
) -> Sensitivity:
    """Return what a run's sensitivity table holds for a scheme, bit for bit.

    Raises
    ------
    RunFolderError
        If the table is damaged, or a group or candidate is missing.
    """
    wanted = pd.MultiIndex.from_product([groups, map(str, candidates)])
    shape = (len(groups), len(candidates))
    table = read_csv(path, text=("scheme", "group", "candidate"))
    try:
        rows = table[table["scheme"] == scheme].set_index(["group", "candidate"]).loc[wanted]
        scores = {name: rows[name].to_numpy(dtype=np.float64).reshape(shape) for name in methods}
        samples = int(rows["samples"].iloc[0])
    except (ValueError, KeyError, OverflowError) as error:
        raise RunFolderError(
            f"expected the sensitivity of every group and candidate under {scheme} in {path}, got a damaged table "
            f"({reason_of(error)}); delete it to have it measured again"
        ) from error
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise RunFolderError(
            f"expected finite sensitivities in {path}, got others; delete it to have it measured again"
        )
    return Sensitivity(groups, candidates, scores, samples)


def costs_table(problem: DeviceProblem) -> pd.DataFrame:
    """Return the design space: one row per (group, candidate) that is allowed, a column per additive metric.

    ``latency_origin`` says where the latencies of the group's layers come from: the profile's table, or a closed form.
    """
    space = problem.space
    index = problem.graph.layer_index
    origins = provenance(problem.graph, problem.profile, space.candidates)
    rows = [
        {
            "group": group.name,
            "candidate": str(candidate),
            **{m.name: space.unary[g, c, i] for i, m in enumerate(space.metrics) if m.name not in space.peaks},
            "latency_origin": " and ".join(sorted({str(origins[index[name], c]) for name in group.layers})),
        }
        for g, group in enumerate(space.groups)
        for c, candidate in enumerate(space.candidates)
        if space.allowed[g, c]
    ]
    return pd.DataFrame(rows)


def resources_table(problem: DeviceProblem) -> pd.DataFrame:
    """Return what latency is spent on: one row per (group, candidate, resource) with time, of allowed candidates.

    Resources are ``compute`` or the memory level that bounds a layer, ``overhead`` and ``table``; what lies between
    layers is not in it.
    """
    space = problem.space
    index = problem.graph.layer_index
    rows = []
    for g, group in enumerate(space.groups):
        for c, candidate in enumerate(space.candidates):
            spent: Counter[str] = Counter()
            for name in group.layers if space.allowed[g, c] else ():
                spent.update(resources_ms(problem.graph.layers[index[name]], candidate, problem.profile))
            rows += [[group.name, str(candidate), resource, time] for resource, time in spent.items()]
    return pd.DataFrame(rows, columns=["group", "candidate", "resource", "latency_ms"])


def roofline_table(problem: DeviceProblem) -> pd.DataFrame:
    """Return what bounds a layer: one row per (layer, candidate) that is allowed, for one inference of one batch.

    ``bound_ms_predicted`` is the time of MACs or of the slowest memory level, ``latency_ms_predicted`` that with the
    overhead per layer; what lies between layers is not in it. See :class:`hwdse.cost.roofline.Bound`.
    """
    space, graph = problem.space, problem.graph
    rows = []
    for layer, g in zip(graph.layers, graph.group_of, strict=True):
        for c, candidate in enumerate(space.candidates):
            if space.allowed[g, c]:
                bound = layer_bound(layer, candidate, problem.profile)
                rows.append([layer.name, str(candidate), *vars(bound).values()])
    names = ["macs", "memory", "memory_bytes", "memory_gb_per_s", "compute_gmac_per_s"]
    names += ["bound_ms_predicted", "latency_ms_predicted", "latency_origin"]
    return pd.DataFrame(rows, columns=["layer", "candidate", *names])


def measured_table(
    problem: DeviceProblem,
    measured: Mapping[str, Measured],
    *,
    quality: str,
    near_front: Collection[str] = (),
) -> pd.DataFrame:
    """Return one row per measured configuration that the device can run, in the order of measuring.

    ``within_noise`` says yes for the bits in ``near_front``: off the front, but not significantly.
    """
    columns = [c for c in problem.space.columns if c != LOSS.name]
    prefix, drop = f"{quality}_measured", f"{quality}_drop_measured"
    names = ["config_id", "bits", *columns]
    names += [prefix, f"{prefix}_low", f"{prefix}_high", drop, f"{drop}_low", f"{drop}_high"]
    names += ["samples", LOSS.name, "uniform", "within_noise"]
    uniform = {problem.bits(genes): name for name, genes in problem.uniforms().items()}
    problem.learn(measured)
    rows = []
    for bits, result in measured.items():
        known = problem.known(bits)
        if known is None:
            continue
        costs = dict(zip(problem.space.columns, map(float, known.metrics), strict=True))
        rows.append(
            [
                *(config_id(bits), bits, *(costs[c] for c in columns)),
                *(result.quality.mean, result.quality.low, result.quality.high),
                *(result.drop.mean, result.drop.low, result.drop.high),
                *(result.quality.samples, costs[LOSS.name], uniform.get(bits, "")),
                "yes" if bits in near_front else "",
            ]
        )
    return pd.DataFrame(rows, columns=names)


def front_table(problem: DeviceProblem, measured: pd.DataFrame, *, quality: str) -> pd.DataFrame:
    """Return the rows of a measured table that no other row dominates, cheapest first."""
    kept = measured.drop(columns=[LOSS.name, "uniform", "within_noise"])
    if not len(kept):
        return kept
    losses = np.column_stack(
        [-kept[f"{quality}_measured"].to_numpy(dtype=np.float64), kept[list(problem.objectives)].to_numpy()]
    )
    front = kept[non_dominated(losses)]
    order = [*problem.objectives, "bits"]
    return front.sort_values(order, kind="stable").reset_index(drop=True)


def interactions_table(states: Mapping[str, SchemeState]) -> pd.DataFrame:
    """Return the pairs of choices whose measured harm together is not what they do apart, strongest evidence first.

    One row per scheme and pair with ``strength``, the coefficient of ``sqrt(s_g s_h) / L`` in the logarithm of the harm
    (positive where a pair hurts more together; see :class:`hwdse.search.surrogate.HarmModel`), and its standard
    deviation. Pairs within three of these from 0 are left out: there are thousands, and two are exceeded by chance.
    """
    names = ["scheme", "first_group", "first_candidate", "second_group", "second_candidate", "strength", "sd"]
    rows = []
    for key, state in states.items():
        groups, candidates = state.sensitivity.groups, state.sensitivity.candidates
        for (g, c), (h, d), strength, sd in state.model.interactions() if state.measured else ():
            if abs(strength) > _EVIDENCE * sd:
                rows.append([key, groups[g], str(candidates[c]), groups[h], str(candidates[d]), strength, sd])
    return pd.DataFrame(rows, columns=names)


def predicted_table(problem: DeviceProblem, *, model: HarmModel | None, full_precision: float) -> pd.DataFrame:
    """Return the predicted front with its costs, and the quality that the measurements so far let expect.

    ``quality_predicted`` is a median with its 95 % interval; NaN while nothing is measured.
    """
    columns = list(problem.space.columns)
    names = ["quality_predicted", "quality_predicted_low", "quality_predicted_high"]
    if not len(problem.archive):
        return pd.DataFrame(columns=["bits", *columns, *names])
    table = pd.DataFrame(problem.space.evaluate(problem.archive), columns=columns)
    table.insert(0, "bits", [problem.bits(genes) for genes in problem.archive])
    expected = None if model is None else problem.expect(model, problem.archive)
    for name, sds in zip(names, (0.0, _Z, -_Z), strict=True):
        table[name] = np.nan if expected is None else full_precision - expected.quantile(sds)
    return table
