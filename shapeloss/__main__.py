"""`python -m shapeloss`."""

from shapeloss.cli import main

main()
