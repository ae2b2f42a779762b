"""``perdure completion``."""

from __future__ import annotations

from typing import Literal

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines

__all__ = ["completion"]


def completion(shell: Literal["bash", "zsh", "fish"], /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Print a completion script for a shell.

    For example, for bash and for zsh:

        perdure completion bash > ~/.local/share/bash-completion/completions/perdure
        perdure completion zsh > ~/.zfunc/_perdure

    Args:
        shell: The shell that shall complete perdure's commands and options.
    """
    from perdure.cli.app import app

    script = app.generate_completion(prog_name="perdure", shell=shell)
    if common.json:
        print_json({"shell": shell, "script": script})
    else:
        print_lines([script.rstrip("\n")])
    return 0
