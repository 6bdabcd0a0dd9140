"""Figures as PGF, for papers that set the words of a figure in their own font; this takes LaTeX."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.text import Text

from hwdse.files import inside
from hwdse.progress import Progress
from hwdse.report.drawing import Drawing

__all__ = ["find_latex", "pgf_writer"]

PROGRAMS = ("xelatex", "lualatex", "pdflatex")
"""Programs that can tell how wide words are, the first that knows all characters of a figure first."""

Writer = Callable[[Drawing, Path], list[Path]]


def find_latex() -> str | None:
    """Return the LaTeX program to use, ``None`` where there is none."""
    return next((program for program in PROGRAMS if shutil.which(program)), None)


@contextmanager
def pgf_writer(progress: Progress, *, wanted: bool) -> Iterator[Writer]:
    """Give a function that writes a drawing as PGF into a folder and returns the paths, none if not ``wanted``.

    Where LaTeX is missing, or fails at a figure, ``progress`` is warned once and no more is written.

    Parameters
    ----------
    progress
        Who is warned.
    wanted
        Whether to write anything.
    """
    program = find_latex() if wanted else None
    if wanted and program is None:
        progress.warn(
            f"expected LaTeX ({', '.join(PROGRAMS[:-1])} or {PROGRAMS[-1]}) for PGF, got none; install one of them, "
            "the other files are written without"
        )
    is_working = program is not None

    def write(drawing: Drawing, folder: Path) -> list[Path]:
        nonlocal is_working
        if not is_working:
            return []
        if any("\\" in words.get_text() for words in drawing.figure.findobj(Text)):
            progress.warn(
                f"expected words without a backslash in {drawing.name} for PGF, got one, which LaTeX would obey; it is "
                "written without PGF"
            )
            return []
        path = inside(folder, f"{drawing.name}.pgf")
        try:
            drawing.figure.savefig(path, format="pgf")
        except (ValueError, RuntimeError, OSError) as error:
            is_working = False
            path.unlink(missing_ok=True)
            progress.warn(
                f"expected {program} to measure the words of {drawing.name}, got: {str(error).splitlines()[0]}; "
                "the other files are written without PGF"
            )
            return []
        return [path, *sorted(folder.glob(f"{drawing.name}-img*.png"))]

    # The paper's own fonts: what is written names none.
    with mpl.rc_context({"pgf.rcfonts": False, "pgf.texsystem": program or PROGRAMS[0]}):
        yield write
