"""``python -m rightreasons``: the command line, as a launcher of several processes needs it."""

from rightreasons.cli.main import main

if __name__ == "__main__":
    main()
