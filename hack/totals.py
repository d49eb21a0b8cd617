"""The last line of `make test`: what all its test runs counted together, from their JUnit reports."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path


def totals(reports: Path) -> Counter[str]:
    """Passed, failed and skipped test cases over every report in a folder."""
    counted: Counter[str] = Counter()
    for report in sorted(reports.glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it a minute ago
            kinds = {child.tag for child in case}
            counted["failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"] += 1
    return counted


def main() -> None:
    counted = totals(Path(sys.argv[1]))
    print(f"{counted['passed']} passed, {counted['failed']} failed, {counted['skipped']} skipped")
    # What was skipped was not shown, so it is no pass either.
    sys.exit(counted["failed"] > 0 or counted["skipped"] > 0 or not counted["passed"])


if __name__ == "__main__":
    main()
