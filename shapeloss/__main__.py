"""`python -m shapeloss`."""

from shapeloss.cli.main import main

main()
