"""The command `relugap` where no script is on the path: `python -m toolkit …`."""

import sys

from toolkit.cli import main

if __name__ == "__main__":  # worker processes import it under another name
    sys.exit(main())
