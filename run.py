"""Run a study: python run.py experiment=<data>/<study> key=value ..."""

from cwx.cli.app import main

# Hydra's completion for fish looks for the words @hydra.main in this file.

if __name__ == "__main__":
    main()
