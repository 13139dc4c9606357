"""`adaptkit data`: data to train on, checked and converted."""

from __future__ import annotations

import click

from adaptkit.cli.data_check import check
from adaptkit.cli.data_convert import convert
from adaptkit.cli.group import NamingGroup


@click.group(cls=NamingGroup)
def data() -> None:
    """Check training data, or turn public datasets into it."""


data.add_command(check)
data.add_command(convert)
