"""python -m tests.benchmarks [ingest] [fold] [freshness] [pages]"""

import argparse

from tests.benchmarks import fold, freshness, ingest, pages, stage

ALL = {"ingest": ingest.run, "fold": fold.run, "freshness": freshness.run, "pages": pages.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ALL))
    names = parser.parse_args().names or list(ALL)
    if unknown := set(names) - set(ALL):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    with stage.servers():
        for name in names:
            print(f"\n{name}: {ALL[name].__doc__}\n({stage.surroundings()})\n", flush=True)
            with stage.database():
                ALL[name]()


main()
