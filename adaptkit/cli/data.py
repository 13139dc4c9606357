"""`adaptkit data`: data to train on, checked, converted and translated."""

from __future__ import annotations

import click

from adaptkit.cli.data_check import check
from adaptkit.cli.data_convert import convert
from adaptkit.cli.data_translate import translate
from adaptkit.cli.group import NamingGroup


@click.group(cls=NamingGroup)
def data() -> None:
    """Check training data, turn public datasets into it, or translate it."""


data.add_command(check)
data.add_command(convert)
data.add_command(translate)
