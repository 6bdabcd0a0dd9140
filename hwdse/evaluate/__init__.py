"""Measured quality of bit configurations and the pool that keeps it."""

from hwdse.evaluate.evaluator import Evaluator, Scores
from hwdse.evaluate.interval import Interval, mean_interval, paired_interval
from hwdse.evaluate.metrics import METRICS, Evaluation, QualityMetric, evaluation_of, top1_on
from hwdse.evaluate.pool import Key, Pool
from hwdse.evaluate.shared import Evaluations, SharedPool

__all__ = [
    "METRICS",
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "Interval",
    "Key",
    "Pool",
    "QualityMetric",
    "Scores",
    "SharedPool",
    "evaluation_of",
    "mean_interval",
    "paired_interval",
    "top1_on",
]
