"""Where the command line begins: so thin that Ctrl-C is answered from the first instant, while all else is imported."""

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
