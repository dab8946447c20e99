"""Receives notices as a subscriber does, and at once finds each item through a STAC API and fetches its assets.

Usage: subscriber.py DATABASE_URL ENDPOINT_URL QUEUE_URL COUNT. Prints "listening", then one line for each item. Exit 1
where an item of a notice is not found, is another one, or cannot be fetched at the moment that its notice comes; or
where fewer than COUNT come.
"""

import json
import pathlib
import sys
import time

import boto3
import pystac_client

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from search import serving  # noqa: E402


def main(database_url: str, endpoint_url: str, queue_url: str, count: str) -> int:
    access = dict(
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="landfall",
        aws_secret_access_key="landfall",
    )
    sqs, s3 = boto3.client("sqs", **access), boto3.client("s3", **access)
    with serving(database_url) as address:
        client = pystac_client.Client.open(address)
        print("listening", flush=True)
        seen, wrong, quiet, until = set(), 0, 0, time.monotonic() + 240
        # A little longer than until the last that is expected: nothing else may come.
        while time.monotonic() < until:
            answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=2)
            for message in answer.get("Messages", []):
                notice = json.loads(message["Body"])
                wrong += check(client, s3, notice)
                seen.add(notice["data"]["id"])
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            quiet = 0 if answer.get("Messages") else quiet + 1
            if len(seen) >= int(count) and quiet >= 3:
                break
    for one in sorted(seen):
        print(one)
    return 1 if wrong or len(seen) < int(count) else 0


def check(client: pystac_client.Client, s3, notice: dict) -> int:
    item = notice["data"]
    when = item["properties"]["datetime"]
    by_id = client.search(collections=[item["collection"]], ids=[item["id"]])
    by_place = client.search(collections=[item["collection"]], bbox=item["bbox"], datetime=when, limit=100)
    found = [one for one in by_id.items()]
    if len(found) != 1 or item["id"] not in {one.id for one in by_place.items()}:
        print(f"{item['id']} is not found", file=sys.stderr)
        return 1
    for name, asset in found[0].assets.items():
        bucket, _, key = asset.href.removeprefix("s3://").partition("/")
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if body.decode() != f"II*{item['id']}":
            print(f"{item['id']}: {name} is another file", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
