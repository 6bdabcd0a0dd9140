"""The command line: verbs, no arithmetic.

Exit codes: 0 done, 2 bad input, 3 infeasible, 4 verification failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from hwdse.commands.panels import CHOOSE, DEPLOY, DEVICES, EXPLORE, SHOW, Panels, complete_device
from hwdse.commands.screen import CONSOLE, fail
from hwdse.errors import HwdseError

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    cls=Panels,
    help="Which number format should every layer of this network use, on this chip?",
    epilog="Start with: hwdse explore experiments/digits.toml --out runs/digits. Every verb has --help; every answer "
    "has --json.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
profiles_app = typer.Typer(
    cls=Panels, help="Hardware profiles: list, show, check, fit, validate.", no_args_is_help=True
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunArgument = Annotated[Path, typer.Argument(help="Run folder that `hwdse explore` wrote.")]
ExperimentArgument = Annotated[Path, typer.Argument(help="Experiment file (TOML).")]
ConfigOption = Annotated[str | None, typer.Option("--config", help="config_id of a measured configuration.")]
BesideOption = Annotated[
    Path | None, typer.Option("--experiment", help="The run's experiment file, if it was moved with its factories.")
]
NoTunedOption = Annotated[
    bool, typer.Option("--no-tuned", help="Leave out what `hwdse finetune` found for the configuration.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", help="Device whose configuration it is; the only one if absent.", autocompletion=complete_device
    ),
]
DevicesOption = Annotated[
    list[str] | None, typer.Option("--device", help="Device; may be repeated.", autocompletion=complete_device)
]


@contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """End with ``sentence`` where the user interrupts; the command line's library would end without a word."""
    try:
        yield
    except KeyboardInterrupt:
        fail(sentence)
        raise typer.Exit(INTERRUPTED) from None


def _say_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"hwdse {version('hwdse')}")
        raise typer.Exit


@app.callback()
def _hwdse(
    version_wanted: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version.")
    ] = False,
) -> None:
    pass


@profiles_app.command("list")
def profiles_list(json: JsonOption = False) -> None:
    """List the hardware profiles that are found."""
    from hwdse.commands.profiles import show_list

    show_list(as_json=json)


@profiles_app.command("show", short_help="Show a profile: every figure, and where it comes from.")
def profiles_show(
    name: Annotated[str, typer.Argument(help="Profile name, or a TOML file.")], json: JsonOption = False
) -> None:
    """Show one profile: what it supports, its figures and where they come from."""
    from hwdse.commands.profiles import show

    show(name, as_json=json)


@profiles_app.command("check", short_help="Report every fault, with its path in the file.")
def profiles_check(
    names: Annotated[list[str] | None, typer.Argument(help="Profile names or TOML files; all if absent.")] = None,
    json: JsonOption = False,
) -> None:
    """Check profiles and report every fault with its path in the file."""
    from hwdse.commands.profiles import check

    check(names or [], as_json=json)


RowsOption = Annotated[
    Path | None, typer.Option("--rows", help="CSV file of published figures; the one beside the profile if absent.")
]


@profiles_app.command("fit", short_help="Fit up to five coefficients to published latencies.")
def profiles_fit(
    name: Annotated[str, typer.Argument(help="Profile name, or a TOML file.")],
    rows: RowsOption = None,
    coefficient: Annotated[
        list[str] | None,
        typer.Option("--coefficient", help="Key of [calibration] or a precision; may be repeated, at most 5."),
    ] = None,
    uniform_only: Annotated[
        bool, typer.Option("--uniform-only", help="Fit to rows with one precision; hold the rest against it.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="TOML file to write the fitted profile to.")] = None,
    json: JsonOption = False,
) -> None:
    """Fit at most five coefficients to published latencies, with the errors on networks left out."""
    from hwdse.commands.published import FitOptions, fit

    options = FitOptions(
        name=name, rows=rows, coefficients=tuple(coefficient or ()), uniform_only=uniform_only, out=out
    )
    fit(options, as_json=json)


@profiles_app.command("validate", short_help="Hold predictions against published figures.")
def profiles_validate(
    names: Annotated[list[str] | None, typer.Argument(help="Profiles; all that have published rows if absent.")] = None,
    rows: RowsOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write the table and the figures to.")] = None,
    json: JsonOption = False,
) -> None:
    """Hold predicted latencies and energies against published ones."""
    from hwdse.commands.published import validate

    validate(names or [], rows=rows, out=out, as_json=json)


@app.command(rich_help_panel=EXPLORE, short_help="Statistics, difficulty, sensitivity, and what each is worth.")
def analyze(
    experiment: ExperimentArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write tables and figures to.")],
    json: JsonOption = False,
) -> None:
    """Write statistics, predicted difficulty, measured sensitivity and what each score is worth, with figures."""
    from hwdse.commands.analyze import analyze

    analyze(experiment, out, as_json=json)


@app.command(rich_help_panel=EXPLORE, short_help="Measured Pareto fronts for every device of an experiment.")
def explore(
    experiment: ExperimentArgument,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<name> if absent.")] = None,
    device: DevicesOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the experiment's.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="How weights are found, instead of [quantize]: gram, nearest, adaround, equalized."),
    ] = None,
    budget_evaluations: Annotated[int | None, typer.Option(help="Measured configurations at most.")] = None,
    budget_seconds: Annotated[float | None, typer.Option(help="Seconds at most.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    executor: Annotated[str, typer.Option(help="Where to evaluate: here, processes or ray.")] = "here",
    workers: Annotated[int | None, typer.Option(help="Evaluations at once; as many as processors if absent.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; one on this machine if absent.")] = None,
    memory_limit: Annotated[int | None, typer.Option(help="MiB that each worker may take for itself.")] = None,
    pool: Annotated[
        str | None,
        typer.Option(envvar="HWDSE_POOL", help="Share evaluations: postgresql://user:password@host/database."),
    ] = None,
    pool_read_only: Annotated[
        bool, typer.Option("--pool-read-only", help="Take evaluations from the pool, and give it none.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Explore an experiment: measured Pareto fronts for every device, from one pool of evaluations."""
    with interruptible("interrupted; what was measured is kept, go on with --resume"):
        from hwdse.commands.explore import Options, explore_experiment
        from hwdse.workers import Workers

        options = Options(
            out=out,
            devices=tuple(device or ()),
            seed=seed,
            recipe=recipe,
            evaluations=budget_evaluations,
            seconds=budget_seconds,
            resume=resume,
            workers=Workers(executor, workers, address, memory_limit),
            pool=pool,
            pool_read_only=pool_read_only,
        )
        explore_experiment(experiment, options, as_json=json)


@app.command(rich_help_panel=DEVICES, short_help="Time this processor, layer by layer, and write its profile.")
def measure(
    name: Annotated[str, typer.Option("--name", help="Name of the profile to write.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the profile and the record to.")],
    model: Annotated[str | None, typer.Option("--model", help="Factory of a network, with --example.")] = None,
    example: Annotated[str | None, typer.Option("--example", help="Factory of its example inputs.")] = None,
    experiment: Annotated[Path | None, typer.Option("--experiment", help="Experiment file naming a network.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Measure the standard grid of shapes.")] = False,
    threads: Annotated[int, typer.Option(help="Threads within one operator.")] = 1,
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Runtime; may be repeated; onnxruntime if absent.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="Precision; may be repeated; fp32, W8A8, W4A8, W2A8 if absent."),
    ] = None,
    block_size: Annotated[int, typer.Option(help="Weights per scale of W8Afp32, W4Afp32, W2Afp32.")] = 64,
    seconds_per_entry: Annotated[float, typer.Option(help="Seconds per entry and pass.")] = 0.05,
    allow_other_machine: Annotated[
        bool, typer.Option("--allow-other-machine", help="Keep rows of other machines and versions beside the new.")
    ] = False,
    end_to_end: Annotated[
        int,
        typer.Option(
            help="Also export and time this many configurations of the whole network, and calibrate; 6 is good."
        ),
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Measure how fast this processor runs layers at each precision, and write a hardware profile of it."""
    with interruptible("interrupted; what was measured is in the record, and measuring again replaces it"):
        from hwdse.commands.measure import DEFAULT_PRECISIONS, Options, measure

        options = Options(
            model=model,
            example=example,
            experiment=experiment,
            grid=grid,
            name=name,
            out=out,
            threads=threads,
            runtimes=tuple(dict.fromkeys(runtime or ["onnxruntime"])),
            precisions=tuple(precision or DEFAULT_PRECISIONS),
            block_size=block_size,
            seconds_per_entry=seconds_per_entry,
            allow_other_machine=allow_other_machine,
            end_to_end=end_to_end,
        )
        measure(options, as_json=json)


@app.command(rich_help_panel=CHOOSE, short_help="The devices of a run side by side: cheapest within limits.")
def compare(
    run: RunArgument,
    device: DevicesOption = None,
    maximum: Annotated[list[str] | None, typer.Option("--max", help="Upper limit, such as latency_ms=33.")] = None,
    minimum: Annotated[list[str] | None, typer.Option("--min", help="Lower limit, such as accuracy=0.9.")] = None,
    price: Annotated[list[str] | None, typer.Option("--price", help="Price of a device in USD: mpic=4.50.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for figures; RUN/figures if absent.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Print every table, not the choice alone.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare the devices of a run: cheapest within limits, what binds, how sure, one configuration for all."""
    from hwdse.commands.compare import compare

    compare(
        run,
        devices=tuple(device or ()),
        maximum=maximum or [],
        minimum=minimum or [],
        price=price or [],
        out=out,
        show_all=show_all,
        as_json=json,
    )


@app.command(rich_help_panel=CHOOSE, short_help="One configuration for a device, within limits.")
def pick(
    run: RunArgument,
    device: DeviceOption = None,
    maximum: Annotated[list[str] | None, typer.Option("--max", help="Upper limit, such as latency_ms=33.")] = None,
    minimum: Annotated[list[str] | None, typer.Option("--min", help="Lower limit, such as accuracy=0.9.")] = None,
    minimize: Annotated[str | None, typer.Option(help="Metric to minimise within the limits instead.")] = None,
    json: JsonOption = False,
) -> None:
    """Pick one configuration for a device under limits, or learn what stands in the way (exit code 3).

    With a limit on a cost it is the best quality that meets all limits; with limits on quality alone, the lowest first
    cost; without limits, the knee of the front.
    """
    from hwdse.commands.answer import pick

    pick(run, device, maximum=maximum or [], minimum=minimum or [], minimize=minimize, as_json=json)


@app.command(rich_help_panel=CHOOSE, short_help="Find the weights of a picked configuration once more.")
def refine(
    run: RunArgument,
    device: DeviceOption = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "--pick", help="config_id of a measured configuration; the pick if absent."),
    ] = None,
    experiment: BesideOption = None,
    json: JsonOption = False,
) -> None:
    """Find the weights of a configuration once more, each after those before it; calls the run's factories."""
    from hwdse.commands.refine import refine_run

    refine_run(run, device, config_id=config, experiment=experiment, as_json=json)


@app.command(rich_help_panel=CHOOSE, short_help="Train the numbers of a picked configuration, without labels.")
def finetune(
    run: RunArgument,
    device: DeviceOption = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "--pick", help="config_id of a measured configuration; the pick if absent."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Factory of batches of inputs; the run's calibration data if absent.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds of training at most, over all sittings.")] = 600.0,
    passes: Annotated[int, typer.Option(help="Times through the data at most.")] = 20,
    batch: Annotated[int, typer.Option(help="Samples per step.")] = 64,
    loss: Annotated[str | None, typer.Option(help="kl (of logits) or mse; by the metric if absent.")] = None,
    temperature: Annotated[float, typer.Option(help="Of kl.")] = 4.0,
    weight_rate: Annotated[
        float, typer.Option(help="Learning rate of weights, in steps; 0 keeps their codes.")
    ] = 0.002,
    activations: Annotated[str, typer.Option(help="Ranges of activations: learned, ema or kept.")] = "learned",
    quantiles: Annotated[
        bool, typer.Option("--quantiles", help="Learned codebooks begin anew, with quantiles of either sign.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the split and of the order of samples.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a tuning that was interrupted.")] = False,
    experiment: BesideOption = None,
    json: JsonOption = False,
) -> None:
    """Train weights, steps and biases of a configuration without labels; calls the factories that the run names.

    It begins with what `hwdse refine` found for the configuration, if it did, and what it finds takes that one's place.
    """
    with interruptible("interrupted; go on with --resume from the last look at the held-back samples"):
        from hwdse.commands.finetune import Options, finetune_run
        from hwdse.quantize.student import Learning

        settings = {
            "learning": Learning(weight_rate=weight_rate, activations=activations, quantiles=quantiles),
            "passes": passes,
            "batch": batch,
            "temperature": temperature,
            "seed": seed,
        }
        options = Options(
            config_id=config,
            data=data,
            experiment=experiment,
            settings=settings,
            loss=loss,
            seconds=seconds,
            resume=resume,
        )
        finetune_run(run, device, options, as_json=json)


@app.command(rich_help_panel=DEPLOY, short_help="Write a configuration as ONNX with explicit quantization.")
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", help="ONNX file to write; encodings go beside it.")],
    device: DeviceOption = None,
    config: ConfigOption = None,
    maximum: Annotated[list[str] | None, typer.Option("--max", help="Upper limit, instead of the pick.")] = None,
    experiment: BesideOption = None,
    no_tuned: NoTunedOption = False,
    json: JsonOption = False,
) -> None:
    """Export a configuration, the picked one by default, as ONNX; calls the factories that the run names."""
    from hwdse.commands.export import export

    export(
        run,
        device,
        out,
        config_id=config,
        maximum=maximum or [],
        experiment=experiment,
        use_tuned=not no_tuned,
        as_json=json,
    )


@app.command(rich_help_panel=DEPLOY, short_help="Run a configuration in ONNX Runtime, and hold it to its promise.")
def verify(
    run: RunArgument,
    device: DeviceOption = None,
    config: ConfigOption = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads within one operator.", min=1)] = 1,
    experiment: Annotated[
        Path | None, typer.Option("--experiment", help="The run's experiment file, whose factories are called; needed.")
    ] = None,
    no_tuned: NoTunedOption = False,
    json: JsonOption = False,
) -> None:
    """Run a configuration in ONNX Runtime: results, executed precisions, latency, size (exit code 4 if they fail)."""
    from hwdse.commands.verify import verify

    verify(
        run,
        device,
        config_id=config,
        threads=threads,
        experiment=experiment,
        use_tuned=not no_tuned,
        as_json=json,
    )


@app.command(rich_help_panel=SHOW, short_help="The page of a run for a browser, and figures for a paper.")
def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option("--out", help="Page to write; RUN/report.html if absent.")] = None,
    figures: Annotated[bool, typer.Option("--figures", help="Draw every figure for a paper, too.")] = False,
    width: Annotated[Literal["single", "double"], typer.Option("--width", help="Columns that a figure takes.")] = (
        "double"
    ),
    pgf: Annotated[bool, typer.Option("--pgf", help="Write figures as PGF, too, which takes LaTeX.")] = False,
    json: JsonOption = False,
) -> None:
    """Write the page of a run, one file for a browser (exit code 3 if nothing fits any device)."""
    from hwdse.commands.report import report

    report(run, out=out, figures=figures, width=width, pgf=pgf, as_json=json)


@app.command(rich_help_panel=SHOW, short_help="The methods and sources that a run used, as BibTeX.")
def cite(run: RunArgument, json: JsonOption = False) -> None:
    """Print the bibliography of a run: its methods, formats and intervals, and the sources of its devices."""
    from hwdse.commands.cite import show_citations

    show_citations(run, as_json=json)


@app.command(rich_help_panel=SHOW, short_help="A run as a database that optuna-dashboard opens.")
def optuna(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", help="SQLite file to write; it must not be there yet.")],
    device: DevicesOption = None,
    json: JsonOption = False,
) -> None:
    """Write what was measured as Optuna studies, one per device, which optuna-dashboard opens."""
    from hwdse.commands.optuna import write_optuna

    write_optuna(run, out, devices=device or [], as_json=json)


app.add_typer(profiles_app, name="profiles", rich_help_panel=DEVICES)


def main() -> None:
    """Run the command line; what a user can mend is one sentence, never a traceback."""
    try:
        sys.exit(app(prog_name="hwdse", standalone_mode=False) or 0)
    except HwdseError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        fail(f"expected to read or write {error.filename or 'a file'}, got: {error.strerror or error}")
        sys.exit(2)
    except Exception as error:
        context, words = getattr(error, "ctx", None), getattr(error, "format_message", None)
        if context is None or words is None:
            raise
        # A wrong line: the library would print how to use the verb, and in a second block what is wrong.
        if "NoArgs" in type(error).__name__:
            CONSOLE.print(words(), markup=False, soft_wrap=True)
        else:
            fail(f"{words().rstrip('.')}; {context.command_path} --help lists what there is")
        sys.exit(2)
