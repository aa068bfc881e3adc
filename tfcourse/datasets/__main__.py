"""Run `fetch.main` as `python -m tfcourse.datasets`."""

import sys

from tfcourse.datasets.fetch import main

if __name__ == "__main__":
    sys.exit(main())
