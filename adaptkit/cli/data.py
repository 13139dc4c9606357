"""`adaptkit data`: data to train on, planned, converted, translated and checked."""

from __future__ import annotations

import click

from adaptkit.cli.data_check import check
from adaptkit.cli.data_convert import convert
from adaptkit.cli.data_plan import plan
from adaptkit.cli.data_translate import translate
from adaptkit.cli.group import NamingGroup


@click.group(cls=NamingGroup)
def data() -> None:
    """Plan, convert, translate and check training data."""


data.add_command(check)
data.add_command(convert)
data.add_command(translate)
data.add_command(plan)
