"""`python -m msth_taichi` is `msth`."""

from msth_taichi.cli import main

if __name__ == "__main__":
    main()
