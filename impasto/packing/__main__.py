"""`python -m impasto.packing`."""

from .pack import main

main()
