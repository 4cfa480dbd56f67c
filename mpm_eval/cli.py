"""The command line: its table of contents and its exit codes."""

import sys
from typing import Annotated, NoReturn

import typer

from mpm_eval import __version__
from mpm_eval.commands.compare import compare
from mpm_eval.commands.contact_sheet import contact_sheet
from mpm_eval.commands.doctor import doctor
from mpm_eval.commands.evaluate import run, score, show
from mpm_eval.commands.gate import baseline, gate
from mpm_eval.commands.interchange import export, import_
from mpm_eval.commands.judge import judge
from mpm_eval.commands.look_up import list_, schema
from mpm_eval.commands.probe import correlate
from mpm_eval.commands.report import report
from mpm_eval.commands.study import study
from mpm_eval.commands.tables import card, leaderboard
from mpm_eval.commands.train import train
from mpm_eval.errors import Interrupted, UserError

app = typer.Typer(
    name="mpm-eval",
    help="Train a model to see in English, then measure what it can do in every other language.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"mpm-eval {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


# in the order that --help shows
for command in (
    run,
    judge,
    score,
    compare,
    gate,
    leaderboard,
    card,
    correlate,
    list_,
    show,
    report,
    contact_sheet,
    import_,
    export,
    train,
    study,
    doctor,
    schema,
):
    app.command(command.__name__.rstrip("_").replace("_", "-"))(command)
app.add_typer(baseline, name="baseline")


def main() -> NoReturn:
    """Run the command line: exit 0 done, 2 a mistake of the user's, 130 interrupted."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _stop(f"error: {error}", 2)
    except Interrupted as error:
        _stop(str(error), 130)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted; run the same command again to continue", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        # Usage errors (of click, wherever Typer keeps it) know how to print themselves.
        if not hasattr(error, "format_message"):
            raise
        _stop(f"error: {error.format_message()}", getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int) -> NoReturn:
    print(" ".join(message.split("\n")), file=sys.stderr)
    sys.exit(code)
