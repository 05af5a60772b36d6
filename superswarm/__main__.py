"""Run `superswarm` as `python -m superswarm`."""

from superswarm.cli import main

if __name__ == "__main__":
    main()
