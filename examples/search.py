"""Finds the demo's items the way a user of the archive does: a STAC API over pgSTAC, asked with pystac-client.

Usage: search.py DATABASE_URL ENDPOINT_URL. Starts stac-fastapi-pgstac on a free loopback port, searches, fetches
every asset from the archive, and stops it. Exit 1 where something that was found cannot be fetched.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

import boto3
import pystac_client


def main(database_url: str, endpoint_url: str) -> int:
    with serving(database_url) as address:
        return search(address, endpoint_url)


@contextlib.contextmanager
def serving(database_url: str, **settings: str) -> Iterator[str]:
    """Runs the STAC API over a database, and gives its address."""
    url = urllib.parse.urlparse(database_url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(
        os.environ,
        PGHOST=url.hostname,
        PGPORT=str(url.port),
        PGUSER=url.username,
        PGPASSWORD=url.password,
        PGDATABASE=url.path.lstrip("/"),
        **settings,
    )
    command = ["-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory", "--host", "127.0.0.1"]
    api = subprocess.Popen(
        [sys.executable, *command, "--port", str(port), "--log-level", "error"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield wait_for(f"http://127.0.0.1:{port}", api)
    finally:
        api.terminate()
        api.wait()


def wait_for(address: str, api: subprocess.Popen) -> str:
    for _ in range(300):
        if api.poll() is not None:
            sys.exit("the STAC API did not start")
        try:
            urllib.request.urlopen(f"{address}/_mgmt/ping", timeout=1)
            return address
        except OSError:
            time.sleep(0.2)
    sys.exit("the STAC API does not answer")


def search(address: str, endpoint_url: str) -> int:
    client = pystac_client.Client.open(address)
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="landfall",
        aws_secret_access_key="landfall",
    )
    missing = 0
    for item in client.search(max_items=100).items():
        sizes = []
        for name, asset in sorted(item.assets.items()):
            bucket, _, key = asset.href.removeprefix("s3://").partition("/")
            try:
                sizes.append(f"{name} {s3.head_object(Bucket=bucket, Key=key)['ContentLength']} B")
            except s3.exceptions.ClientError:
                missing += 1
                sizes.append(f"{name} MISSING")
        print(f"  found  {item.collection_id}/{item.id}  ({', '.join(sizes)})")
    box = [176, -73, 179, -72]
    within = [item.id for item in client.search(bbox=box, datetime="2021-09-01/2021-09-30").items()]
    print(f"  in the box {box} in September 2021: {', '.join(within) or 'nothing'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
