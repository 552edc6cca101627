# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.golden FILE...`: print each array's relative error; exit 1 on any miss."""

import argparse
import sys

from tests.golden.checker import GoldenError, check_file


def main(argv: list[str] | None = None) -> int:
    """Check every file, even after a miss; return 0 if all are readable and within bounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="golden .npz file")
    failed = False
    for path in parser.parse_args(argv).files:
        try:
            rows = check_file(path)
        except GoldenError as error:
            print(f"ERROR {error}", file=sys.stderr)
            failed = True
            continue
        print(path)
        for row in rows:
            verdict = "ok  " if row.passed else "MISS"
            figures = f"relative error {row.error:.2e}  bound {row.bound:.0e}  {row.note}"
            print(f"  {verdict} {row.name:<28} {figures}".rstrip())
        failed |= not all(row.passed for row in rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
