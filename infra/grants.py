"""Takes each grant of each role away, one at a time, and looks whether a delivery notices it.

grants.py LANDFALL STATE [STAGE …]     with the state folder of a running `landfall up --lambda`

Each time the role's function starts anew and a delivery lands that needs every stage, or maintenance is called: it must
not come to its known end. What a local endpoint lets pass is held by infra/policy.py, which knows every grant. The rows of
these stages, or all, are written into docs/grants.md. Exit code 1 where all grants together are not enough.
"""

import copy
import json
import re
import subprocess
import sys
import time

import boto3
import policy
from cfnlint.decode import decode

SECONDS = 9
ITEM = {
    "type": "Feature", "stac_version": "1.0.0", "geometry": {"type": "Point", "coordinates": [16.5, 47.9]},
    "bbox": [16.5, 47.9, 16.5, 47.9], "properties": {"datetime": "2024-05-17T10:15:00Z"}, "links": [], "assets": {},
}
COLLECTION = {
    "type": "Collection", "stac_version": "1.0.0", "description": "d", "license": "CC-BY-4.0", "links": [],
    "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]}},
}


class World:
    def __init__(self, landfall, state):
        self.landfall, self.state = landfall, state
        deployment = json.load(open(f"{state}/deployment.json"))
        self.outputs = deployment["outputs"]
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self.client = lambda name: boto3.client(name, endpoint_url=deployment["endpoint"], **keys)
        self.s3, self.iam, self.functions, self.sqs = map(self.client, ["s3", "iam", "lambda", "sqs"])
        self.run = int(time.time())

    def put(self, key, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.s3.put_object(Bucket=self.outputs["LandingBucket"], Key=f"sbn/{key}", Body=body)

    def summary(self, prefix):
        command = [self.landfall, "status", f"sbn/{prefix}/", "--summary", "--format", "json", "--state", self.state]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)["summary"]

    def delivery(self):
        """Whether a delivery that needs everything comes to its end in time."""
        self.run += 1
        name = f"G{self.run}"
        metadata = f"{name}/metadata"
        item = lambda id, **more: ITEM | {"id": f"{name}-{id}", "collection": name} | more
        # It waits for its asset, and the others for their collection.
        self.put(f"{metadata}/waits.json", item("waits", assets={"data": {"href": f"../data/late.tif"}}))
        self.put(f"{metadata}/large.json", item("large", properties=ITEM["properties"] | {"title": "x" * 300_000}))
        self.put(f"{metadata}/removed.json", item("removed"))
        self.put(f"{metadata}/broken.json", b"{")
        # Of two files with one item the newer counts, whether the other was announced before or not; when it goes, the
        # other's document comes back.
        twin = item("twin", properties=ITEM["properties"] | {"title": "x" * 300_000})
        self.put(f"{metadata}/twin-1.json", twin)
        # Load refuses the second of two members with one id.
        line = json.dumps(item("line")).encode()
        self.put(f"{metadata}/lines.ndjson", line + b"\n" + line + b"\n")
        time.sleep(1)
        self.put(f"{metadata}/twin-2.json", twin)
        self.put(f"{metadata}/collection.json", COLLECTION | {"id": name})
        self.put(f"{name}/data/late.tif", b"II*late")
        # Larger than what is copied at once.
        self.put(f"{name}/data/parts.bin", bytes(6 << 20))
        until = time.time() + SECONDS
        if not self.is_soon(name, until, {"completed": 9, "refused": 2}, {"completed": 8, "refused": 2, "superseded": 1}):
            return False
        for key in ["removed", "twin-2"]:
            self.s3.delete_object(Bucket=self.outputs["LandingBucket"], Key=f"sbn/{metadata}/{key}.json")
        return self.is_soon(name, until, {"completed": 7, "refused": 2, "removed": 2})

    def is_soon(self, prefix, until, *wanted):
        while time.time() < until:
            if self.summary(prefix) in wanted:
                return True
            time.sleep(0.3)
        return False

    def maintenance(self):
        """Whether maintenance gives reasons to what crashed, and archives what its queue cannot carry."""
        self.run += 1
        marks = []
        for number, stage in enumerate(["Validate", "Route", "Load", "Notify"]):
            mark = f"{self.run}-{stage}"
            body = mark + "x" * ((1 << 20) - 20 - len(mark) if stage == "Validate" else 10)
            self.sqs.send_message(QueueUrl=self.outputs[f"{stage}DeadQueue"], MessageBody=body)
            marks.append(mark)
        answer = self.functions.invoke(FunctionName=self.outputs["MaintainFunction"])
        if "FunctionError" in answer:
            return False
        return self.is_adopted(marks)

    def is_adopted(self, marks):
        command = [self.landfall, "dlq", "show", "--code", "gave-up", "--format", "json", "--state", self.state]
        letters = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode()
        bodies = [json.loads(line)["body"] for line in letters.splitlines()]
        return all(any(body.startswith(mark) for body in bodies) for mark in marks)

    def start_anew(self, function):
        """A new process, which reads its configuration again."""
        variables = self.functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        variables["LANDFALL_GRANTS_RUN"] = str(self.run)
        self.functions.update_function_configuration(FunctionName=function, Environment={"Variables": variables})


def listed(value):
    return value if isinstance(value, list) else [value]


def without(document, place, action, resource):
    """The document, where one action on one resource is not allowed."""
    document = copy.deepcopy(document)
    statement = document["Statement"].pop(place)
    actions, resources = listed(statement["Action"]), listed(statement["Resource"])
    rest = [
        {"Effect": "Allow", "Action": [other for other in actions if other != action], "Resource": resource},
        {"Effect": "Allow", "Action": actions, "Resource": [other for other in resources if other != resource]},
    ]
    document["Statement"] += [one for one in rest if one["Action"] and one["Resource"]]
    return document


def name_of(arn):
    """A resource as infra/policy.py names it."""
    last = arn.split(":", 5)[5]
    if ":sqs:" in arn:
        stage, *dead = last.removeprefix("landfall-").split("-")
        return f"{stage.capitalize()}{'Dead' if dead else ''}Queue"
    if ":s3:" in arn:
        return last.removeprefix("landfall-")
    return re.search(r"\w+(Topic|Log)\b", last)[0]


HEAD = """# The rights of the roles

Each grant of each role of the template, and what notices that it is missing: `make test-grants` takes one after the other
from the role in a running deployment, starts its function anew, and lands a delivery that needs every stage (documents of
every end, one too large for a message, one that waits for its asset, a copy in parts, a removal) or calls maintenance. What the local
endpoint lets pass, or what a condition leaves out there, the template's check notices (`infra/policy.py`, a part of the
lints), which holds this page and the template against each other. In a VPC each role also has `VpcPolicy`: network interfaces.

| role | action | resource | noticed by |
|---|---|---|---|
"""


def main(landfall, state, *wanted):
    world = World(landfall, state)
    roles = {one["Role"].rsplit("/", 1)[1]: one["FunctionName"] for one in world.functions.list_functions()["Functions"]}
    assert world.delivery(), "a delivery with all grants does not come to its end"
    assert world.maintenance(), "maintenance with all grants does not do its work"
    noticed, begun = {}, {row[:3]: row[3] for row in policy.rows_of_page()}
    for role, function in sorted(roles.items()):
        stage = role.split("-")[1].removesuffix("Role").lower()
        if wanted and stage not in wanted:
            continue
        name = world.iam.list_role_policies(RoleName=role)["PolicyNames"][0]
        document = world.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        put = lambda one: world.iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(one))
        exercise, word = (world.maintenance, "maintenance") if stage == "maintain" else (world.delivery, "a delivery")
        for place, statement in enumerate(document["Statement"]):
            for action in listed(statement["Action"]):
                for resource in listed(statement["Resource"]):
                    put(without(document, place, action, resource))
                    world.start_anew(function)
                    found = "the template's check" if exercise() else word
                    put(document)
                    world.start_anew(function)
                    # What was denied is tried again now: the next one begins when nothing of it is left.
                    while not exercise():
                        pass
                    noticed[stage, action, name_of(resource)] = found
                    print(f"{stage:<9} {action:<32} {name_of(resource):<28} {found}", flush=True)
    assert world.delivery() and world.maintenance(), "with all grants again they do not come to their end"
    count = sum(found != "the template's check" for found in noticed.values())
    print(f"{len(noticed)} grants taken away one by one; {count} noticed by a delivery or by maintenance")
    known = begun | noticed if wanted else noticed
    text, _ = decode("infra/landfall.yaml")
    rows = [
        (stage, action, target, known.get((stage, action, target), "the template's check"))
        for name, role in policy.Template(text).of("AWS::IAM::Role").items()
        for stage in [name.removesuffix("Role").lower()]
        for action, target in policy.allowed(role)
    ]
    lines = [f"| `{stage}` | `{action}` | `{target}` | {found} |\n" for stage, action, target, found in rows]
    policy.PAGE.write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
