"""Where the process starts. Every expected failure becomes one line on standard error and an exit code."""

import sys

from penstock.cli import app
from penstock.errors import InvalidInput, PenstockError

FAILED = 1
WRONG_INPUT = 2


def main() -> None:
    """Run the command line: exit 0 done, 1 failed, 2 wrong usage or not found."""
    try:
        app()
    except InvalidInput as error:
        _end(error, WRONG_INPUT)
    except (PenstockError, OSError) as error:
        _end(error, FAILED)


def _end(error: Exception, code: int) -> None:
    print(f"penstock: {str(error) or type(error).__name__}", file=sys.stderr)  # noqa: T201  a person reads it
    sys.exit(code)


if __name__ == "__main__":
    main()
