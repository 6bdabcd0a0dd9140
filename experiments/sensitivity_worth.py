"""Which sensitivity ranks the layers of ResNet-20 by the task loss they really cost, and how many samples that takes.

The truth is the rise of the cross-entropy on 1,452 labelled test images, one tied group at one precision at a time. The
sensitivities see calibration images without labels. Run it with ``python experiments/sensitivity_worth.py``; data and
weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import kendalltau

from hwdse.analysis.correlation import correlation_table
from hwdse.analysis.difficulty import measure_difficulty
from hwdse.analysis.draws import draw
from hwdse.analysis.fisher import predict_sensitivity
from hwdse.analysis.hessian import hessian_sensitivity
from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.analysis.task import measure_task_sensitivity
from hwdse.capture import capture
from hwdse.factories import load_factory
from hwdse.files import write_csv
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.report.drawing import new_figure, style

HERE = Path(__file__).parent
CANDIDATES = tuple(Precision.parse(text) for text in ("W2A8", "W4A4", "W4A8", "W8A8"))
METHODS = ("kl", "jsd", "cosine", "sqnr_db")
SAMPLES, LARGEST = 256, 1024
SIZES = (16, 32, 64, 128, 256, 512, 1024)
RESAMPLES = 200

Floats = NDArray[np.float64]


def main() -> None:
    """Measure, print the tables, and write tables and figure beside the experiments."""
    console = Console()
    model, example, evaluation = (
        load_factory(name, folder=HERE)()
        for name in ("models.py:resnet20", "models.py:resnet20_example", "data.py:cifar10_evaluation")
    )
    images = load_factory("data.py:cifar10_images", folder=HERE)()
    program = Program.of(capture(model, example))
    network = _network(program, images[:512])
    console.print("measuring the task loss", style="dim")
    truth = measure_task_sensitivity(network, evaluation, candidates=CANDIDATES).scores["cross_entropy"]
    console.print("measuring sensitivities", style="dim")
    scores = _scores(network, images[:SAMPLES])
    worth = correlation_table(scores, truth, candidates=CANDIDATES, rng=np.random.default_rng(0))
    console.print("measuring more samples and other images", style="dim")
    many = measure_sensitivity(network, images[:LARGEST].split(64), candidates=CANDIDATES, methods=("kl",))
    sizes = _over_sizes(many.per_sample["kl"], truth)
    domains = _over_domains(program, images[:SAMPLES], truth)
    results = HERE / "results"
    for name, table in {"worth": worth, "sizes": sizes, "domains": domains}.items():
        console.print(table.to_string(index=False, float_format="{:.3f}".format), markup=False, soft_wrap=True)
        console.print(str(write_csv(results / f"sensitivity_{name}.csv", table)), markup=False, soft_wrap=True)
    with style():
        _draw(worth, sizes).savefig(results / "sensitivity.png", dpi=200)
    console.print(str(results / "sensitivity.png"), markup=False, soft_wrap=True)


def _network(program: Program, images: torch.Tensor) -> QuantizedNetwork:
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, images.split(64)))


def _scores(network: QuantizedNetwork, images: torch.Tensor) -> dict[str, Floats]:
    """Return every sensitivity, larger for more harm; what is predicted says so in its name."""
    rng, batches = np.random.default_rng(0), images.split(64)
    measured = measure_sensitivity(network, batches, candidates=CANDIDATES, methods=METHODS)
    scores = {name: measured.scores[name] * (-1.0 if name == "sqnr_db" else 1.0) for name in METHODS}
    few = draw(network, batches, draws=32, rng=rng)
    scores["kl, 32 draws"] = measure_sensitivity(network, few, candidates=CANDIDATES, methods=("kl",)).scores["kl"]
    for name, draws, passes, share in (("fisher", 48, 4, 0.0), ("fisher, a quarter measured", 24, 4, 0.25)):
        chosen = draw(network, batches, draws=draws, rng=rng)
        found = predict_sensitivity(
            network, chosen, candidates=CANDIDATES, rng=rng, passes=passes, measured_share=share
        )
        scores[f"{name} (predicted)"] = found.scores["kl_predicted"]
    curvature = hessian_sensitivity(network, batches, candidates=CANDIDATES, rng=rng, probes=20)
    scores["hessian (predicted)"] = curvature.scores["hessian_predicted"]
    scores["difficulty (predicted)"] = measure_difficulty(network, CANDIDATES)
    return scores


def _within(score: Floats, truth: Floats) -> float:
    """Return Kendall's tau over the groups at one candidate, mean over the candidates."""
    return float(np.mean([kendalltau(score[:, c], truth[:, c]).statistic for c in range(truth.shape[1])]))


def _over_sizes(per_sample: Floats, truth: Floats) -> pd.DataFrame:
    """Return how the order by KL divergence agrees with the task loss and with the order on all samples."""
    rng, whole = np.random.default_rng(0), per_sample.mean(-1)
    rows = []
    for size in SIZES:
        kept = [rng.choice(per_sample.shape[-1], size, replace=False) for _ in range(RESAMPLES)]
        means = [per_sample[..., chosen].mean(-1) for chosen in kept[: 1 if size == per_sample.shape[-1] else None]]
        for against, reference in (("task loss", truth), (f"all {LARGEST} samples", whole)):
            for pool, tau in (("all", lambda s, r: kendalltau(s, r, axis=None).statistic), ("within", _within)):
                taus = [tau(mean, reference) for mean in means]
                low, high = np.quantile(taus, (0.025, 0.975))
                rows.append([size, against, pool, float(np.mean(taus)), float(low), float(high)])
    return pd.DataFrame(rows, columns=["samples", "against", "pool", "kendall", "kendall_low", "kendall_high"])


def _over_domains(program: Program, images: torch.Tensor, truth: Floats) -> pd.DataFrame:
    """Return how orders found on other images, ranges included, agree with the task loss."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(images[0, 0].numel(), generator=generator)
    spread, mean = images.std((0, 2, 3), keepdim=True), images.mean((0, 2, 3), keepdim=True)
    domains = {
        "images": images,
        "images upside down, negative": 2.0 * mean - images.flip(2),
        "pixels shuffled": images.flatten(2)[..., places].view_as(images),
        "Gaussian noise": mean + spread * torch.randn(images.shape, generator=generator),
    }
    rows = []
    for name, batch in domains.items():
        network = _network(program, batch)
        found = measure_sensitivity(network, batch.split(64), candidates=CANDIDATES, methods=("kl",)).scores["kl"]
        overall = float(kendalltau(found, truth, axis=None).statistic)
        rows.append([name, len(batch), overall, _within(found, truth)])
    return pd.DataFrame(rows, columns=["calibration", "samples", "kendall", "kendall_within"])


def _draw(worth: pd.DataFrame, sizes: pd.DataFrame) -> Figure:
    """Return the figure: what every sensitivity is worth, and how many samples the order takes."""
    figure = new_figure(7.2, 3.3)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    looks = {"all": ("#0072B2", "o", "over all precisions"), "within": ("#D55E00", "D", "at one precision")}
    names = worth.loc[worth["pool"] == "all", "score"].tolist()
    for pool, (colour, marker, label) in looks.items():
        rows = worth[worth["pool"] == pool].set_index("score").loc[names]
        y = np.arange(len(names)) + (0.15 if pool == "within" else -0.15)
        left.hlines(y, rows["kendall_low"].astype(float), rows["kendall_high"].astype(float), color=colour)
        left.plot(rows["kendall"].astype(float), y, marker, color=colour, markersize=4, ls="", label=label)
        line = sizes[(sizes["pool"] == pool) & (sizes["against"] == "task loss")]
        right.plot(line["samples"], line["kendall"], marker=marker, color=colour, markersize=4)
        right.fill_between(line["samples"], line["kendall_low"], line["kendall_high"], color=colour, alpha=0.2)
    left.set(yticks=np.arange(len(names)), yticklabels=names, xlabel="Kendall's tau with the task loss, 95 %")
    left.invert_yaxis()
    left.axvline(0.0, color="black", linewidth=0.8)
    right.set_xscale("log", base=2)
    right.set(xticks=SIZES, xticklabels=SIZES, xlabel="Calibration samples", ylabel="Kendall's tau, KL divergence")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
