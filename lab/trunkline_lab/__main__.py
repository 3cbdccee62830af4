"""`python -m trunkline_lab`."""

from trunkline_lab.cli import main

main()
