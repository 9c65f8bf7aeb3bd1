"""Entry point of the command line.

It imports nothing heavy, so that Ctrl-C is answered while the rest is imported.
"""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from hydrascope.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("hydrascope: interrupted", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
