"""`python -m adaptkit`, the same as the command `adaptkit`."""

from adaptkit.cli import main

main()
