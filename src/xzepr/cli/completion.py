"""`xzepr completion bash|zsh|fish`: the script with which a shell completes commands and options."""

import click

_HOW = {
    "bash": 'eval "$(xzepr completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(xzepr completion zsh)"    in ~/.zshrc, after compinit',
    "fish": "xzepr completion fish | source   in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HOW.values()))
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete xzepr's commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three"
    click.echo(kind(ctx.find_root().command, {}, "xzepr", "_XZEPR_COMPLETE").source())
