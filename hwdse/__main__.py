"""``python -m hwdse``."""

from hwdse.cli import main

if __name__ == "__main__":
    main()
