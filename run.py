"""Run a study: python run.py experiment=<data>/<study> key=value ..."""

from cwx.cli.app import main

# Hydra's completion for fish searches this file for the words @hydra.main.

if __name__ == "__main__":
    main()
