"""Calibration and evaluation batches of the experiments, from the files under ``$HWDSE_DATA``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hwdse.errors import InputError

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
_STORY_TOKENS = 512


def data_file(name: str) -> Path:
    """Return a file under ``$HWDSE_DATA``."""
    root = os.environ.get("HWDSE_DATA") or str(Path(__file__).resolve().parents[2] / "shared" / "data")
    path = Path(root) / name
    if not path.is_file():
        raise InputError(f"expected the data file {path}, got none; set HWDSE_DATA to the folder that holds {name}")
    return path


def _cifar10(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images ``(n, 3, 32, 32)`` and labels."""
    with np.load(data_file(f"data_cifar10/{split}.npz")) as archive:
        images, labels = archive["x"], archive["y"]
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (scaled - _MEAN) / _STD, torch.from_numpy(labels.astype(np.int64))


def cifar10_images() -> torch.Tensor:
    """Return 4,000 training images ``(n, 3, 32, 32)``."""
    return _cifar10("train_lossless")[0]


def cifar10_calibration() -> list[torch.Tensor]:
    """Return 512 training images in batches of 64."""
    return list(cifar10_images()[:512].split(64))


def cifar10_training() -> list[torch.Tensor]:
    """Return 16,000 images made of the 4,000 training images, in batches of 64, to tune a configuration on.

    As they are; mirrored and shifted; and twice mixed in pairs, mirrored and shifted: what lies between two images is
    where the network is unsure, and says most about what it has learned. No labels are needed.
    """
    images = cifar10_images()
    generator = torch.Generator().manual_seed(0)

    def moved() -> torch.Tensor:
        padded = nn.functional.pad(images, (4, 4, 4, 4))
        mirrored = torch.where(_drawn(2) == 1, padded, padded.flip(3))
        rows, columns = ((_drawn(9) + torch.arange(32).reshape(1, 1, -1, 1)).expand(-1, 3, -1, 40), _drawn(9))
        return mirrored.gather(2, rows).gather(3, (columns + torch.arange(32)).expand(-1, 3, 32, -1))

    def mixed() -> torch.Tensor:
        share = torch.rand(len(images), 1, 1, 1, generator=generator)
        return share * moved() + (1 - share) * moved()[torch.randperm(len(images), generator=generator)]

    def _drawn(choices: int) -> torch.Tensor:
        return torch.randint(choices, (len(images), 1, 1, 1), generator=generator)

    made = torch.cat([images, moved(), mixed(), mixed()])
    return list(made[torch.randperm(len(made), generator=generator)].split(64))


def cifar10_evaluation() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return 1,452 test images with labels in batches of 64."""
    images, labels = _cifar10("test_lossless")
    return list(zip(images.split(64), labels.split(64), strict=True))


def _kws(calibration: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features ``(n, 1, 49, 10)`` and labels of the 200 calibration or the 800 other utterances."""
    with np.load(data_file("mlperf_tiny_kws_dscnn/data.npz")) as archive:
        chosen = archive["is_calib"] == calibration
        codes = archive["q"][chosen].astype(np.float32)
        features = (codes - float(archive["zero_point"])) * float(archive["scale"])
        labels = archive["y"][chosen].astype(np.int64)
    return torch.from_numpy(features)[:, None], torch.from_numpy(labels)


def kws_calibration() -> list[torch.Tensor]:
    """Return 200 utterances in batches of 50."""
    return list(_kws(calibration=True)[0].split(50))


def kws_evaluation() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return 800 utterances with labels in batches of 100."""
    features, labels = _kws(calibration=False)
    return list(zip(features.split(100), labels.split(100), strict=True))


def _stories() -> list[torch.Tensor]:
    """Return all 167 stories as ids ``(1, length)`` from the token of the beginning, cut at what the network reads."""
    with np.load(data_file("llm_stories260k/data.npz")) as archive:
        ids, lengths = torch.from_numpy(archive["ids"].astype(np.int64)), archive["length"].tolist()
    return [story[None, :_STORY_TOKENS] for story in ids.split(lengths)]


def stories260k_calibration() -> list[torch.Tensor]:
    """Return the first 40 stories, one per batch, without their last token, which no other follows."""
    return [story[:, :-1] for story in _stories()[:40]]


def stories260k_evaluation() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the 127 other stories with the token that follows each, one story per batch: they differ in length."""
    return [(story[:, :-1], story[:, 1:]) for story in _stories()[40:]]
