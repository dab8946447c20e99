"""Copying with route beside `aws s3 cp --recursive` with its defaults, on one endpoint: times, and as a ratio."""

import os
import subprocess
import sys
import time

import boto3

endpoint, bench, aws = sys.argv[1:4]
os.environ.update(AWS_ACCESS_KEY_ID="landfall", AWS_SECRET_ACCESS_KEY="landfall", AWS_REGION="us-east-1",
                  AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
s3 = boto3.client("s3", endpoint_url=endpoint)
for bucket in ("landfall-work", "bench-small", "bench-large"):
    s3.create_bucket(Bucket=bucket)
for number in range(1000):
    s3.put_object(Bucket="bench-small", Key=f"sbn/{number:04}.txt", Body=b"x" * 4096)
s3.put_object(Bucket="bench-large", Key="sbn/large.bin", Body=os.urandom(64 << 20))


def measured(source: str, what: str) -> None:
    times = {"aws s3 cp": [], "route": []}
    for passed in range(3):
        for name in times:
            target = f"to-{source}-{passed}-{name.replace(' ', '-')}"
            s3.create_bucket(Bucket=target)
            if name == "route":
                run = subprocess.run([bench, "--endpoint", endpoint, "--from", source, "--to", target],
                                     check=True, capture_output=True, text=True)
                times[name].append(float(run.stdout.strip().splitlines()[-1]))
                continue
            start = time.perf_counter()
            subprocess.run([aws, "--endpoint-url", endpoint, "s3", "cp", "--recursive", "--only-show-errors",
                            f"s3://{source}", f"s3://{target}"], check=True)
            times[name].append(time.perf_counter() - start)
    theirs, ours = (sorted(times[name])[1] for name in ("aws s3 cp", "route"))
    print(f"{what}: aws s3 cp {theirs:.2f} s, route {ours:.2f} s: {theirs / ours:.2f} times as fast "
          "(route looks at both sides before and after, and compares)")


measured("bench-small", "1,000 objects of 4 KiB")
measured("bench-large", "one of 64 MiB in parts")
