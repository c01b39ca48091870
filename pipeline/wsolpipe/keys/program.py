"""A program of many commands, each imported when it is called; other words for a command are answered with its name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.keys.shell import KeyCommand

#: From which on a command is a slip of another, as ``fti`` of ``fit``; ``show`` is none of ``push``.
LIKENESS = 0.65
#: Words that somebody may type -> the command that does it; commands of both programs by the same name come first.
MEANT = {
    "run": "wsolpipe run",
    "make start resume continue execute build label process": "wsolpipe run",
    "plan dry-run dryrun preview-run": "wsolpipe plan",
    "status show progress watch state jobs top": "wsolpipe status",
    "stages steps models params parameters": "wsolpipe stages",
    "ls list dir tree contents": "wsolpipe ls",
    "gc clean clear delete remove rm prune purge": "wsolpipe gc",
    "push upload copy cp sync send": "wsolpipe push",
    "pull download fetch get clone": "wsolpipe pull",
    "publish share release": "wsolpipe publish",
    "verify validate checksum audit": "wsolpipe verify",
    "repair fix mend recover": "wsolpipe repair",
    "explain diff why": "wsolpipe explain",
    "quarantine bad failed errors": "wsolpipe quarantine",
    "import load annotate": "wsolpipe import",
    "doctor diagnose info env": "wsolpipe doctor",
    "init setup create new configure describe": "wsolpipe init",
    "check lint inspect": "wsolpipe check",
    "demo example tutorial sample": "wsolpipe demo",
    "adopt": "wsolpipe adopt",
    "eval evaluate evaluation score test measure metrics figures accuracy": "wsolpipe eval",
    "report html page": "wsolpipe report",
    "export save convert": "wsolpipe export",
    "fit train training learn finetune fine-tune": "wsoltrain fit",
    "predict infer inference detect locate localize localise apply": "wsoltrain predict",
    "preview view visualize visualise draw plot": "wsoltrain preview",
    "compare benchmark": "wsoltrain compare",
    "search tune hpo optimise optimize": "wsoltrain search",
    "select choose best": "wsoltrain select",
    "reproduce table tables paper": "wsoltrain reproduce",
    "ceiling": "wsoltrain ceiling",
    "noise": "wsoltrain noise",
}
_OPTIONS = {"help": "--help", "version": "--version", "usage": "--help", "?": "--help", "commands": "--help"}
_END = "    return 0\n"
_NO_BLANK = "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/.] ]] && compopt -o nospace\n"


class Program(click.Group):
    """Commands by name, each imported from its module when it is called.

    Parameters
    ----------
    listed : mapping of str to str
        Command -> one line about it, in the order of ``--help``.
    package : str
        Package of the modules.
    homes : mapping of str to str, optional
        Command -> module that holds it, where that has another name.
    first : str
        Shown where no word is given; empty for the help.
    """

    def __init__(
        self,
        *,
        listed: Mapping[str, str],
        package: str,
        homes: Mapping[str, str] | None = None,
        first: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__(**attributes)
        self.listed, self.package, self.homes, self.first = dict(listed), package, homes or {}, first

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the first screen where no word is given."""
        if not args and self.first and not ctx.resilient_parsing:
            click.echo(self.first)
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of the help."""
        return list(self.listed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None where there is none of that name."""
        return self.load(cmd_name) if cmd_name in self.listed else None

    def load(self, cmd_name: str) -> KeyCommand:
        """Import a command that is listed."""
        module = importlib.import_module(f"{self.package}.{self.homes.get(cmd_name, cmd_name)}")
        held = (item for item in vars(module).values() if isinstance(item, click.Command))
        command = next(item for item in held if item.name == cmd_name)
        return cast("KeyCommand", command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.listed.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of another word say which is meant."""
        if args and args[0] not in self.listed and not args[0].startswith("-"):
            raise self._unknown(str(ctx.info_name), args)
        return super().resolve_command(ctx, args)

    def _unknown(self, program: str, words: list[str]) -> ConfigError:
        from wsolpipe.contract.errors import ConfigError, guess, nearest, shorten

        word = words[0]
        hint = f"{program} --help lists the commands"
        msg = f"unknown command {shorten(word)!r}"
        if option := _OPTIONS.get(word.lower()):
            call = [program, *(name for name in words[1:2] if name in self.listed), option]
            return ConfigError(f"{msg}; write {' '.join(call)}", hint=hint)
        own = [command.split()[1] for words, command in MEANT.items() if word.lower() in words.split()]
        meant = next((f"{program} {name}" for name in own if name in self.listed), None)
        meant = meant or next((command for words, command in MEANT.items() if word.lower() in words.split()), None)
        other = {command.split()[1]: command for command in MEANT.values()}
        near = f"; did you mean {meant!r}?" if meant else guess(word, self.listed, cutoff=LIKENESS)
        if not near and (close := nearest(word, other, cutoff=LIKENESS)):
            near = f"; did you mean {other[close]!r}?"
        return ConfigError(f"{msg}{near or '.'} Valid: {', '.join(sorted(self.listed))}", hint=hint)


def register_bash() -> None:
    """Complete in bash without click's blank after ``key=``, a folder or an item of a list, so that one types on."""
    from click.shell_completion import BashComplete, add_completion_class

    class KeyBash(BashComplete):
        source_template = BashComplete.source_template.replace(_END, _NO_BLANK + _END, 1)

    add_completion_class(KeyBash)
