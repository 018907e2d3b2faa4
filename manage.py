#!/usr/bin/env python
"""Django's command-line entry point. Commands that need servers get them for as long as they run."""

import os
import sys

WITHOUT_SERVERS = {
    "",
    "help",
    "--help",
    "-h",
    "version",
    "--version",
    "collectstatic",
    "findstatic",
    "startapp",
}


def main() -> None:
    if sys.version_info < (3, 12):  # noqa: UP036 -- said before anything newer is imported
        sys.exit("Headroom needs Python 3.12 or newer: run `make demo`, which finds one, or use .venv/bin/python.")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415 -- a wrong Python is told above

    from config import embedded  # noqa: PLC0415 -- a wrong Python is told above

    command = sys.argv[1] if len(sys.argv) > 1 else ""
    servers = [] if command in WITHOUT_SERVERS else embedded.wanted(os.environ)
    try:
        with embedded.running(embedded.data_folder(os.environ), servers):
            execute_from_command_line(sys.argv)
    except embedded.EmbeddedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
