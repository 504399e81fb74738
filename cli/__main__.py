"""`python -m wellkit.cli`, for launchers that start modules: torchrun -m wellkit.cli train ..."""

from wellkit.cli.app import main

if __name__ == "__main__":
    main()
