"""Look a data set over before training: the same as `msth check DATA [--output report.html]`."""

import sys

from msth_taichi.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["check"]
    main()
