"""`python -m shapeloss`."""

from shapeloss.cli.entry import main

main()
