"""Looks for items through a STAC API as their users do, and compares what is found with what was loaded.

Usage: found.py DATABASE_URL ITEMS.ndjson. Prints how many items were found by what; exit 1 where one is not, or is
another one than the document.
"""

import json
import pathlib
import sys
from datetime import datetime, timedelta, timezone

import pystac_client

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from search import serving  # noqa: E402

# The API writes these itself. https://github.com/stac-utils/stac-fastapi-pgstac/blob/main/stac_fastapi/pgstac/models/links.py
OWN_LINKS = {"self", "item", "parent", "collection", "root"}


def main(database_url: str, file: str) -> int:
    documents = [json.loads(line) for line in pathlib.Path(file).read_text().splitlines()]
    by_name = {name(document): document for document in documents}
    # Where pgSTAC puts items together itself, it drops members that are null.
    with serving(database_url, USE_API_HYDRATE="true") as address:
        client = pystac_client.Client.open(address)
        wrong = [*by_id(client, by_name), *by_place_and_time(client, documents), *by_cql2(client, by_name)]
    print("\n".join(wrong[:50]))
    return 1 if wrong else 0


def name(document: dict) -> tuple[str, str]:
    return document["collection"], document["id"]


def search(client: pystac_client.Client, **what) -> dict[tuple[str, str], dict]:
    return {name(found): found for found in client.search(method="POST", limit=100, **what).items_as_dicts()}


def by_id(client, by_name):
    names, found = list(by_name), {}
    for start in range(0, len(names), 100):
        found |= search(client, ids=[id for _, id in names[start : start + 100]])
    print(f"{len(found)} of {len(names)} found by their ids")
    yield from (f"{one} is not found by its id" for one in names if one not in found)
    for one, document in by_name.items():
        yield from (f"{one}: {difference}" for difference in differences(document, found.get(one, document)))


def differences(document, found, pointer=""):
    """Where two values differ; numbers as the API's users read them."""
    if pointer == "/links":
        document, found = ([link for link in links if link["rel"] not in OWN_LINKS] for links in (document, found))
    if isinstance(document, dict) and isinstance(found, dict):
        for key in sorted(document.keys() | found.keys()):
            if key not in found:
                yield f"{pointer}/{key} is gone: {json.dumps(document[key])}"
            elif key not in document:
                yield f"{pointer}/{key} has come: {json.dumps(found[key])}"
            else:
                yield from differences(document[key], found[key], f"{pointer}/{key}")
    elif isinstance(document, list) and isinstance(found, list) and len(document) == len(found):
        for index, pair in enumerate(zip(document, found)):
            yield from differences(*pair, f"{pointer}/{index}")
    elif document != found or isinstance(document, bool) != isinstance(found, bool):
        yield f"{pointer} was {json.dumps(document)[:200]} and is {json.dumps(found)[:200]}"


def span(document):
    properties = document["properties"]
    texts = [properties.get("start_datetime"), properties.get("end_datetime")]
    if None in texts:
        texts = [properties["datetime"]] * 2
    return [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts]


def by_place_and_time(client, documents):
    """Every so many items by their own box and time."""
    some = documents[:: max(1, len(documents) // 50)]
    for document in some:
        box = document["bbox"]
        flat = box if len(box) == 4 else [*box[:2], *box[3:5]]
        west, south, east, north = flat
        # An edge may be on the far side of the antimeridian.
        box = [max(-180, west), max(-90, south), min(180, east), min(90, north)]
        start, end = span(document)
        text = "/".join(time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z") for time in (start, end))
        for what in ({"bbox": box}, {"datetime": text}, {"bbox": box, "datetime": text}):
            if name(document) not in search(client, collections=[document["collection"]], **what):
                yield f"{name(document)} is not found by {what}"
        before = (start - timedelta(days=2)).astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
        if name(document) in search(client, ids=[document["id"]], datetime=f"../{before}"):
            yield f"{name(document)} is found before it begins"
    print(f"{len(some)} looked for by their box, their time, and both")


def by_cql2(client, by_name):
    """All whose clouds are below a bound, and no others."""
    for bound in (1, 10, 50):
        expected = {
            one
            for one, document in by_name.items()
            if isinstance(cover := document["properties"].get("eo:cloud_cover"), (int, float)) and cover < bound
        }
        what = {"op": "<", "args": [{"property": "eo:cloud_cover"}, bound]}
        found = set(search(client, filter=what, filter_lang="cql2-json"))
        print(f"{len(found)} found by eo:cloud_cover < {bound}")
        yield from (f"{one} is not found by {what}" for one in expected - found)
        yield from (f"{one} is found by {what}" for one in found - expected)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
