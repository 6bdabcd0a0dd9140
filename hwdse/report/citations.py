"""What to cite of a run: the sources of its methods and of its devices, as BibTeX.

Which feature rests on which work is said in one place, :data:`CITED`. A package that brings a calibrator or a
sensitivity may bring its sources, too: a mapping from a feature to BibTeX under the entry-point group
``hwdse.references``. Features are written as :func:`features_of` gives them; ``*`` stands for any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hwdse.errors import InputError
from hwdse.files import read_json
from hwdse.formats import Precision
from hwdse.hardware import recorded_profile
from hwdse.hardware.load import search_path
from hwdse.plugins import load_plugin, plugin_names
from hwdse.report.tables import RunTables
from hwdse.report.words import PERCENT
from hwdse.search.adaptive import ENUMERATED

__all__ = ["CITED", "GROUP", "Citation", "Citations", "bibliography", "cite", "entries_of", "features_of"]

GROUP = "hwdse.references"  # entry points: name = module:mapping

CITED: Mapping[str, str] = MappingProxyType(
    {
        # A network and its numbers.
        "statistics of tensors": "Chan1983 Pebay2008",
        "number format int*": "Jacob2018",
        "number format fp4_*": "OCPMX2023",
        "number format fp6_*": "OCPMX2023",
        "number format fp8_*": "OCPFP8 OCPMX2023",
        "number format fp16": "IEEE754",
        "number format posit*": "Gustafson2017",
        "number format pot*": "Li2020",
        "number format apot*": "Li2020",
        "number format nf*": "Dettmers2023",
        "number format binary": "Rastegari2016",
        "number format ternary": "Li2016",
        "number format codebook*": "Lloyd1982 Max1960 Panter1951",
        "number format quantile*": "Jia2025",
        # How quantized values are found.
        "ranges by ema": "Jacob2018",
        "ranges by entropy": "Migacz2017",
        "ranges by l2.4": "Li2021",
        "ranges by aciq_*": "Banner2019",
        "rounding by gram": "Frantar2023",
        "rounding by adaround": "Nagel2020",
        "rounding by adaround, block by block": "Li2021",
        "bias correction": "Nagel2019",
        "equalization": "Nagel2019",
        "hwdse refine": "Frantar2023",
        "hwdse finetune": "Esser2020 Hinton2015 Kingma2015",
        # What predicts harm.
        "sensitivity by kl": "Kullback1951 Madow1949",
        "sensitivity by jsd": "Lin1991 Madow1949",
        "sensitivity by cosine": "Madow1949",
        "sensitivity by fisher": "Madow1949 Martens2020",
        "sensitivity by difficulty": "Widrow2008",
        # What searches.
        "exact predicted fronts": "NemhauserUllmann1969",
        "predicted front by NSGA-II": "Deb2002",
        "choice of what to measure": "Barlow1972 Emmerich2006 Rasmussen2006",
        "one configuration for all devices": "Barlow1972 Kouvelis1997",
        # What is measured and predicted.
        "intervals of shares": "Agresti2005 Wilson1927",
        "intervals of means": "Student1908",
        "predicted latency": "Williams2009",
    }
)
"""Feature to keys of ``references.bib``."""

_SHARES = PERCENT | {"agreement"}
_MEANS = frozenset({"log_likelihood", "negative_kl", "sqnr_db"})
"""What a function of one's own scores may be either."""


@dataclass(frozen=True)
class Citation:
    """One entry of a bibliography.

    Attributes
    ----------
    key
        Its key.
    bibtex
        The whole entry.
    uses
        Features and devices that rest on it, sorted.
    """

    key: str
    bibtex: str
    uses: tuple[str, ...]


@dataclass(frozen=True)
class Citations:
    """What to cite of a run.

    Attributes
    ----------
    entries
        Sorted by key, each key once.
    missing
        Devices whose profile was not found, so that their sources are left out.
    """

    entries: tuple[Citation, ...]
    missing: tuple[str, ...]

    @property
    def bibtex(self) -> str:
        """All entries, each below a comment that says what it is cited for."""
        return "\n\n".join(f"% {'; '.join(entry.uses)}\n{entry.bibtex}" for entry in self.entries)


def cite(run: Path) -> Citations:
    """Return what to cite of the run folder ``run``: for its methods, and for the profiles of its devices.

    Raises
    ------
    InputError
        If ``run`` is no run, one of its files is damaged, or a key that a feature names is in no bibliography.
    """
    tables = RunTables.load(run)
    resolved = read_json(run / "resolved.json")
    known = bibliography()
    uses: dict[str, set[str]] = {}
    for feature in features_of(tables, resolved):
        for pattern, keys in CITED.items():
            for key in keys.split() if fnmatchcase(feature, pattern) else ():
                uses.setdefault(key, set()).add(feature)
        for entry, bibtex in _brought(feature):
            known.setdefault(entry, bibtex)
            uses.setdefault(entry, set()).add(feature)
    profiles = {name: recorded_profile(resolved, name) for name in tables.devices}
    for name, profile in profiles.items():
        for source, citation in profile.spec.sources.items() if profile is not None else ():
            key = source if source in known else f"{name}_{source}"
            known.setdefault(key, _as_misc(key, citation))
            uses.setdefault(key, set()).add(f"device {name}")
    if unknown := sorted(set(uses) - set(known)):
        raise InputError(f"expected an entry of references.bib for {', '.join(unknown)}, got none; add it")
    entries = tuple(Citation(key, known[key], tuple(sorted(uses[key]))) for key in sorted(uses))
    return Citations(entries, tuple(name for name, profile in profiles.items() if profile is None))


def features_of(tables: RunTables, resolved: Mapping[str, Any]) -> list[str]:
    """Return the features that a run used, in the words of :data:`CITED`, sorted.

    Parameters
    ----------
    tables
        The run's tables.
    resolved
        What its ``resolved.json`` holds.
    """
    run, identity, recipe = tables.run, resolved.get("identity", {}), resolved.get("quantize", {})
    measured = {name for result in tables.results.values() for bits in result.measured["bits"] for name in bits.split()}
    precisions = [Precision.parse(name) for name in measured]
    tuned = [read_json(path).get("by") for path in run.glob("*/tuned/*/tuned.json")]
    found = {
        "statistics of tensors": True,
        f"sensitivity by {identity.get('loss')}": "loss" in identity,
        "exact predicted fronts": True,
        "predicted front by NSGA-II": any(d.space_size > ENUMERATED for d in tables.results.values()),
        "choice of what to measure": bool(measured),
        "one configuration for all devices": (run / "fleet.csv").is_file(),
        "intervals of shares": tables.quality.name not in _MEANS,
        "intervals of means": tables.quality.name not in _SHARES,
        "predicted latency": tables.cost_like("latency") is not None,
        "equalization": bool(recipe.get("equalization")),
        "bias correction": recipe.get("bias_correction", "none") != "none",
        "rounding by adaround, block by block": bool(recipe.get("adaround", {}).get("by_block"))
        and recipe.get("weight_rounding") == "adaround",
        f"rounding by {recipe.get('weight_rounding')}": "weight_rounding" in recipe,
        f"ranges by {recipe.get('weight_ranges')}": "weight_ranges" in recipe,
        f"ranges by {recipe.get('activation_ranges')}": "activation_ranges" in recipe,
        **{f"hwdse {by}": by is not None for by in tuned},
        **{f"number format {text}": True for each in precisions for text in (each.weights.name, each.activations.name)},
    }
    return sorted(feature for feature, is_used in found.items() if is_used)


def bibliography() -> dict[str, str]:
    """Return the entries of every ``references.bib`` beside profiles by key; the first one of a key wins.

    The folders are those of :func:`hwdse.hardware.load.search_path`: a user's own, the installed package's, the
    repository's.
    """
    entries: dict[str, str] = {}
    for folder in search_path():
        path = folder / "references.bib"
        for key, entry in entries_of(path.read_text(encoding="utf-8")) if path.is_file() else ():
            entries.setdefault(key, entry)
    return entries


def entries_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield key and text of every entry of a bibliography.

    Raises
    ------
    InputError
        If an entry does not end.

    >>> list(entries_of("words @misc{A1, title = {{B} of C}} words @book{D2, year = 3}"))
    [('A1', '@misc{A1, title = {{B} of C}}'), ('D2', '@book{D2, year = 3}')]
    """
    for start in re.finditer(r"@\w+\{\s*([^\s,{}]+)\s*,", text):
        depth = 0
        for end in range(start.start(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if text[end] == "}" and depth == 0:
                yield start[1], text[start.start() : end + 1]
                break
        else:
            raise InputError(f"expected a closing brace of the entry {start[1]}, got none; correct the bibliography")


def _brought(feature: str) -> Iterator[tuple[str, str]]:
    """Yield the entries that installed packages bring for a feature."""
    for name in plugin_names(GROUP):
        for pattern, text in load_plugin(GROUP, name).items():
            if fnmatchcase(feature, pattern):
                yield from entries_of(text)


def _as_misc(key: str, citation: str) -> str:
    r"""Return the entry of a source that a profile describes in words alone.

    >>> print(_as_misc("own_lab", "50 % of A_1"))
    @misc{own_lab,
      title = {{50 \% of A\_1}},
    }
    """
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", citation.replace("\\", "/"))
    return f"@misc{{{key},\n  title = {{{{{escaped}}}}},\n}}"
