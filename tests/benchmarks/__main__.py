"""python -m tests.benchmarks [name ...]: those of ALL, or those that are named."""

import argparse

from tests.benchmarks import authorizations, burst, fold, freshness, ingest, margin, pages, reading, stage, stored

ALL = {
    "ingest": ingest.run,
    "burst": burst.run,
    "fold": fold.run,
    "freshness": freshness.run,
    "pages": pages.run,
    "spend": reading.spend_to_date,
    "unique": reading.unique,
    "authorizations": authorizations.run,
    "margin": margin.run,
}
LONG = {"stored": stored.run, "usage": reading.usage}  # many minutes, and 10 GB of disk


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ALL | LONG))
    names = parser.parse_args().names or list(ALL)
    if unknown := set(names) - (ALL | LONG).keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    with stage.servers():
        for name in names:
            print(f"\n{name}: {(ALL | LONG)[name].__doc__}\n({stage.surroundings()})\n", flush=True)
            with stage.database():
                (ALL | LONG)[name]()


main()
