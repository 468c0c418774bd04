"""Run a study: python run.py experiment=<data>/<study> key=value ..."""

from cwx.main import main

if __name__ == "__main__":
    main()
