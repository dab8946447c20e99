"""Measures what other validators need for the documents that the benchmark judged, in the same run.

Schemas come from Landfall's bundle, so that nobody waits for a network. The peers are given parsed documents, while
Landfall's figure includes reading the text.
"""

import json
import pathlib
import statistics
import sys
import time

import jsonschema
import pystac
import pystac.validation
from stac_validator import fast_validator

ITEMS = 100
PASSES = 3


def main(folder: pathlib.Path, bundle: pathlib.Path | None) -> None:
    schemas = {}
    if bundle:
        for line in bundle.read_text().splitlines()[1:]:
            entry = json.loads(line)
            if entry.get("text"):
                schemas[entry["url"]] = entry["text"]
    fast_validator.SCHEMA_CACHE.update({url: json.loads(text) for url, text in schemas.items()})
    for draft in ("http://json-schema.org/draft-07/schema", "http://json-schema.org/draft-07/schema#"):
        fast_validator.SCHEMA_CACHE[draft] = jsonschema.Draft7Validator.META_SCHEMA

    class Local(pystac.stac_io.DefaultStacIO):
        def read_text(self, source, *args, **kwargs):
            return schemas[str(source)]

    pystac.StacIO.set_default(Local)
    measured = json.loads((folder / "measured.json").read_text())
    print(f"\n{'set':<16} {'peer':<24} {'µs':>10} {'Landfall µs':>12} {'ratio':>8}")
    for name, ours in measured.items():
        items = [json.loads(line) for line in (folder / f"{name}.ndjson").read_text().splitlines()]
        items = items[:: max(1, len(items) // ITEMS)][:ITEMS]
        fast = fast_validator.FastValidator("", quiet=True)
        peers = {
            "stac-valid 4.6.1, fast": lambda item: fast._validate_single_item(item, 0)[0],
            "pystac 1.15.2": lambda item: pystac.validation.validate_dict(item) is not None,
        }
        for peer, validate in peers.items():
            try:
                times = [best(validate, item) for item in items]
            except Exception as error:
                print(f"{name:<16} {peer:<24} not measured: {type(error).__name__}: {str(error)[:80]}")
                continue
            mean = statistics.fmean(times) * 1e6
            print(f"{name:<16} {peer:<24} {mean:>10.1f} {ours:>12.1f} {mean / ours:>7.0f}x")


def best(validate, item) -> float:
    times = []
    # The first pass compiles.
    for _ in range(PASSES + 1):
        start = time.perf_counter()
        taken = validate(item)
        times.append(time.perf_counter() - start)
        assert taken, "a peer does not take a valid item"
    return min(times[1:])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
