"""Holds the template against what cfn-lint does not look at.

policy.py TEMPLATE             says what is wrong with it; exit code 1 where something is
policy.py TEMPLATE --plant     plants each of a list of faults in it, and asserts that each is found
"""

import copy
import json
import re
import sys
from pathlib import Path

from cfnlint.decode import decode

# Every grant of every role, and who notices that it is missing; `make test-grants` writes it.
PAGE = Path(__file__).parent.parent / "docs" / "grants.md"
MODULE = Path(__file__).parent / "terraform"
STAGES = ["Validate", "Route", "Load", "Notify"]
PUBLIC = ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"]
# A batch call has a name of its own on local endpoints.
BOTH = ["sqs:SendMessage*", "sqs:DeleteMessage*", "sqs:ChangeMessageVisibility*", "sns:Publish*"]


class Template:
    def __init__(self, text):
        self.parameters, self.resources = text["Parameters"], text["Resources"]

    def of(self, kind):
        return {name: one.get("Properties", {}) for name, one in self.resources.items() if one["Type"] == kind}

    def number(self, value):
        """A number, or the default of the parameter that is referred to."""
        if isinstance(value, dict):
            value = self.parameters[value["Ref"]]["Default"]
        return int(value)


def resource(value):
    """The resource that `!Ref X` and `!GetAtt X.Arn` name."""
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return value["Ref"]
    got = value.get("Fn::GetAtt", [None])
    return got.split(".")[0] if isinstance(got, str) else got[0]


def listed(value):
    return value if isinstance(value, list) else [value]


def chosen(statement):
    """A statement, also where it is there on a condition only."""
    return statement["Fn::If"][1] if "Fn::If" in statement else statement


def statements(policy):
    return [chosen(one) for one in policy["PolicyDocument"]["Statement"]]


def grants(role):
    return [one for policy in role["Policies"] for one in statements(policy)]


def named(target):
    """The resource of a grant as the page about the roles has it: LoadQueue, work/config/*, more archives/*."""
    if isinstance(target, dict) and "Fn::Split" in target:
        _, text = target["Fn::Split"]
        if "Ref" in text:
            return "more " + re.fullmatch(r"More(\w+)BucketArns", text["Ref"])[1].lower() + "s"
        form, values = text["Fn::Sub"]
        between, buckets = values["All"]["Fn::Join"]
        assert (form, between) == ("${All}/*", "/*,"), target
        return f"{named(buckets)}/*"
    if isinstance(target, dict) and "Fn::Sub" in target:
        return re.sub(r"^\$\{(\w+)Bucket\.Arn\}", lambda found: found[1].lower(), target["Fn::Sub"])
    name = resource(target)
    return name.removesuffix("Bucket").lower() if name.endswith("Bucket") else name


def allowed(role):
    """Each grant of a role alone: action, resource."""
    pairs = [(action, named(one_of)) for one in grants(role) for action in listed(one["Action"]) for one_of in listed(one["Resource"])]
    return list(dict.fromkeys(pairs))


def rows_of_page():
    """The rows of the page: role, action, resource, and what notices that it is missing."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [tuple(cell.strip(" `") for cell in line.split("|")[1:-1]) for line in lines]


def on_page():
    """The grants that the page has, by role."""
    return {row[:3] for row in rows_of_page()}


def denies_plain(policy, action):
    return any(
        one["Effect"] == "Deny"
        and one["Principal"] == "*"
        and one["Action"] == action
        and one.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for one in statements(policy)
    )


def queues(t):
    all_queues, policies = t.of("AWS::SQS::Queue"), t.of("AWS::SQS::QueuePolicy")
    for stage in STAGES:
        queue, dead = all_queues[f"{stage}Queue"], all_queues[f"{stage}DeadQueue"]
        redrive = queue.get("RedrivePolicy")
        if not redrive or resource(redrive["deadLetterTargetArn"]) != f"{stage}DeadQueue":
            yield "no-dead-queue", f"{stage}Queue has no dead-letter queue of its own"
        elif t.number(redrive["maxReceiveCount"]) < 5:
            yield "max-receive-count", f"{stage}Queue gives a message up before its fifth receive"
        if dead.get("RedrivePolicy"):
            yield "dead-redrives", f"{stage}DeadQueue gives letters up"
        allowed = dead.get("RedriveAllowPolicy", {})
        own = json.dumps(allowed.get("sourceQueueArns", [])).endswith(f'-{stage.lower()}"}}]')
        if allowed.get("redrivePermission") != "byQueue" or not own:
            yield "redrive-allow", f"{stage}DeadQueue takes letters of other queues"
        if dead.get("MessageRetentionPeriod", 0) <= queue.get("MessageRetentionPeriod", 345600):
            yield "retention", f"{stage}DeadQueue forgets its letters as early as {stage}Queue does"
        if t.number(queue["VisibilityTimeout"]) < 6 * t.number({"Ref": "FunctionTimeout"}):
            yield "visibility", f"{stage}Queue shows a message again before six timeouts of its function"
    fed_by_s3 = {
        resource(one["Queue"])
        for bucket in t.of("AWS::S3::Bucket").values()
        for one in bucket.get("NotificationConfiguration", {}).get("QueueConfigurations", [])
    }
    for name, queue in all_queues.items():
        own = [policy for policy in policies.values() if name in map(resource, policy["Queues"])]
        if queue.get("SqsManagedSseEnabled") is not True and not queue.get("KmsMasterKeyId"):
            yield "queue-encryption", f"{name} is not encrypted"
        if name in fed_by_s3 and queue.get("KmsMasterKeyId"):
            yield "fed-by-s3", f"S3 cannot send to {name} under this key"
        if not any(denies_plain(policy, "sqs:*") for policy in own):
            yield "queue-tls", f"{name} takes requests without TLS"
        for one in (one for policy in own for one in statements(policy) if one["Effect"] == "Allow"):
            condition = json.dumps(one.get("Condition", {}))
            if "aws:SourceArn" not in condition or "aws:SourceAccount" not in condition:
                yield "queue-source", f"anybody's service may send to {name}"


def buckets(t):
    policies = t.of("AWS::S3::BucketPolicy")
    for name, bucket in t.of("AWS::S3::Bucket").items():
        if not all(bucket.get("PublicAccessBlockConfiguration", {}).get(one) is True for one in PUBLIC):
            yield "public-bucket", f"{name} may be made public"
        if "BucketEncryption" not in bucket:
            yield "bucket-encryption", f"{name} is not encrypted"
        own = [policy for policy in policies.values() if resource(policy["Bucket"]) == name]
        if not any(denies_plain(policy, "s3:*") for policy in own):
            yield "bucket-tls", f"{name} takes requests without TLS"
        policies_of_end = [t.resources[name].get("DeletionPolicy"), t.resources[name].get("UpdateReplacePolicy")]
        if policies_of_end != ["RetainExceptOnCreate", "Retain"]:
            yield "bucket-retained", f"{name} goes with its stack, or stays of one that was never there"
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        if bucket.get("VersioningConfiguration", {}).get("Status") != "Enabled":
            yield "versioning", f"{name} loses what is overwritten"
        if name in ("LandingBucket", "ArchiveBucket"):
            if not any("AbortIncompleteMultipartUpload" in rule for rule in rules):
                yield "uploads", f"{name} keeps the parts of uploads that nobody goes on with"
        for rule in rules:
            kept = rule.get("Prefix", "").startswith(("status/", "letters/", "provenance/", "config/"))
            if "ExpirationInDays" in rule and (kept or not rule.get("Prefix")):
                yield "expiry", f"{name} forgets what is to be kept"


def functions(t):
    roles, used = t.of("AWS::IAM::Role"), {}
    for name, function in t.of("AWS::Lambda::Function").items():
        role = resource(function["Role"])
        if role in used:
            yield "shared-role", f"{name} has the role of {used[role]}"
        used[role] = name
        log = resource(function.get("LoggingConfig", {}).get("LogGroup"))
        if not t.of("AWS::Logs::LogGroup").get(log, {}).get("RetentionInDays"):
            yield "log-retention", f"{name}'s log is kept for ever"
    for name, role in roles.items():
        if role.get("ManagedPolicyArns", {}).get("Fn::If", [None, None])[:2] != ["InVpc", [{"Ref": "VpcPolicy"}]]:
            yield "managed-policy", f"{name} has rights that are not of this template"
    in_vpc = {action: one["Resource"] for one in statements(t.of("AWS::IAM::ManagedPolicy")["VpcPolicy"]) for action in one["Action"]}
    for action, target in in_vpc.items():
        if not action.startswith("ec2:") or "*" in action or target == "*" and "Describe" not in action:
            yield "wide-resource", f"VpcPolicy grants {action} on {target}"
    for name, role in roles.items():
        for one in grants(role):
            for action in listed(one["Action"]):
                if action.endswith("*") and action not in BOTH:
                    yield "wide-action", f"{name} is granted {action}"
            for target in listed(one["Resource"]):
                if target == "*" or target == {"Fn::Sub": "*"}:
                    yield "wide-resource", f"{name} is granted {one['Action']} on everything"
                elif isinstance(target, dict) and "Fn::Sub" in target and target["Fn::Sub"].endswith(":s3:::*"):
                    yield "wide-resource", f"{name} is granted {one['Action']} on every bucket"
    found = {(name.removesuffix("Role").lower(), *one) for name, role in roles.items() for one in allowed(role)}
    for stage, action, target in sorted(found ^ on_page(), key=str):
        word = "is not granted" if (stage, action, target) in on_page() else "is granted, and is not on the page,"
        yield "grant", f"{stage} {word} {action} on {target}"
    published = {
        resource(target)
        for one in grants(roles["NotifyRole"])
        if "sns:Publish*" in listed(one["Action"])
        for target in listed(one["Resource"])
    }
    if published != {"CompletedTopic", "RejectedTopic"}:
        yield "publish", f"notify may publish to {sorted(published)}"
    for stage in ("Load", "Notify"):
        actions = {action for one in grants(roles[f"{stage}Role"]) for action in listed(one["Action"])}
        if not {"secretsmanager:GetSecretValue", "kms:Decrypt", "rds-db:connect"} <= actions:
            yield "database-access", f"{stage} cannot get the database's password"
    for name, mapping in t.of("AWS::Lambda::EventSourceMapping").items():
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield "batch-failures", f"{name} repeats a whole batch for one failure"
        if t.number(mapping["BatchSize"]) > 10 and t.number(mapping.get("MaximumBatchingWindowInSeconds", 0)) < 1:
            yield "batch-window", f"{name} asks for more than 10 messages without a window: AWS refuses that"
        if "MaximumConcurrency" not in mapping.get("ScalingConfig", {}):
            yield "concurrency", f"{name} has no limit"


def alarms(t):
    told = [alarm for alarm in t.of("AWS::CloudWatch::Alarm").values() if alarm.get("AlarmActions")]

    def on(metric, dimension, name):
        of_name = lambda one: any(d["Name"] == dimension and resource(d["Value"]) == name for d in one.get("Dimensions", []))
        return [alarm for alarm in told if alarm["MetricName"] == metric and of_name(alarm)]

    for name in t.of("AWS::Lambda::Function"):
        if not any(alarm["Statistic"] == "Minimum" for alarm in on("Errors", "FunctionName", name)):
            yield "error-alarm", f"nobody is told that {name} has errors and no success"
    for alarm in on("landfall_dependency_up", "stage", "load") or [{}]:
        if alarm.get("TreatMissingData") != "ignore":
            yield "database-alarm", "nobody is told that the database is down, or it counts as up where nobody asks"
    for stage in STAGES:
        if not on("ApproximateAgeOfOldestMessage", "QueueName", f"{stage}Queue"):
            yield "age-alarm", f"nobody is told that {stage}Queue stands still"
        if not on("ApproximateNumberOfMessagesVisible", "QueueName", f"{stage}DeadQueue"):
            yield "dead-alarm", f"nobody is told of letters in {stage}DeadQueue"


def terraform(t):
    """The Terraform module has a variable for each parameter, and passes each on."""
    variables = {one.replace("_", "") for one in re.findall(r'^variable "(\w+)"', (MODULE / "variables.tf").read_text(), re.M)}
    passed = set(re.findall(r"^    (\w+) += ", (MODULE / "main.tf").read_text(), re.M))
    for name in t.parameters:
        if name.lower() not in variables or name not in passed:
            yield "terraform", f"the module does not pass {name} on"


def check(text):
    t = Template(text)
    return [found for rules in (queues, buckets, functions, alarms, terraform) for found in rules(t)]


def at(*path):
    """A fault: this place is taken away, or set to the value after `=`."""

    def plant(text):
        *way, last = path[: path.index("=")] if "=" in path else path
        place = text["Resources"]
        for step in way:
            place = place[step]
        if "=" in path:
            place[last] = path[-1]
        else:
            del place[last]

    return plant


def grant(role, statement):
    return lambda text: text["Resources"][role]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"].append(statement)


def revoked(role, action, target):
    """A fault: one action on one resource is not allowed."""

    def plant(text):
        for one in grants(text["Resources"][role]["Properties"]):
            if action in listed(one["Action"]) and target in map(named, listed(one["Resource"])):
                one["Resource"] = [other for other in listed(one["Resource"]) if named(other) != target]

    return plant


def default(parameter, value):
    return lambda text: text["Parameters"][parameter].update(Default=value)


P = "Properties"
FAULTS = [
    ("no-dead-queue", at("RouteQueue", P, "RedrivePolicy")),
    ("no-dead-queue", at("RouteQueue", P, "RedrivePolicy", "deadLetterTargetArn", "=", {"Fn::GetAtt": ["LoadDeadQueue", "Arn"]})),
    ("max-receive-count", default("MaxReceiveCount", 4)),
    ("max-receive-count", at("LoadQueue", P, "RedrivePolicy", "maxReceiveCount", "=", 1)),
    ("dead-redrives", at("LoadDeadQueue", P, "RedrivePolicy", "=", {"maxReceiveCount": 5})),
    ("redrive-allow", at("NotifyDeadQueue", P, "RedriveAllowPolicy")),
    ("redrive-allow", at("NotifyDeadQueue", P, "RedriveAllowPolicy", "redrivePermission", "=", "allowAll")),
    ("retention", at("ValidateDeadQueue", P, "MessageRetentionPeriod", "=", 345600)),
    ("visibility", default("FunctionTimeout", 61)),
    ("visibility", at("LoadQueue", P, "VisibilityTimeout", "=", 60)),
    ("queue-encryption", at("LoadQueue", P, "SqsManagedSseEnabled")),
    ("fed-by-s3", at("ValidateQueue", P, "KmsMasterKeyId", "=", "alias/aws/sqs")),
    ("queue-tls", at("RouteQueuePolicy")),
    ("queue-source", at("ValidateQueuePolicy", P, "PolicyDocument", "Statement", 0, "Condition", "StringEquals")),
    ("public-bucket", at("WorkBucket", P, "PublicAccessBlockConfiguration", "BlockPublicPolicy")),
    ("bucket-encryption", at("ArchiveBucket", P, "BucketEncryption")),
    ("bucket-tls", at("LandingBucketPolicy")),
    ("bucket-retained", at("ArchiveBucket", "DeletionPolicy", "=", "Delete")),
    ("bucket-retained", at("WorkBucket", "UpdateReplacePolicy")),
    ("versioning", at("LandingBucket", P, "VersioningConfiguration")),
    ("versioning", at("WorkBucket", P, "VersioningConfiguration", "=", {"Status": "Suspended"})),
    ("uploads", at("LandingBucket", P, "LifecycleConfiguration")),
    ("expiry", lambda text: text["Resources"]["WorkBucket"][P]["LifecycleConfiguration"]["Rules"].append({"Prefix": "letters/", "ExpirationInDays": 1})),
    ("shared-role", at("LoadFunction", P, "Role", "=", {"Fn::GetAtt": ["RouteRole", "Arn"]})),
    ("log-retention", at("RouteFunction", P, "LoggingConfig")),
    ("wide-action", grant("RouteRole", {"Effect": "Allow", "Action": "s3:*", "Resource": {"Fn::GetAtt": ["WorkBucket", "Arn"]}})),
    ("wide-resource", grant("LoadRole", {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})),
    ("wide-resource", grant("LoadRole", {"Effect": "Allow", "Action": "s3:GetObject", "Resource": {"Fn::Sub": "arn:${AWS::Partition}:s3:::*"}})),
    ("wide-resource", at("VpcPolicy", P, "PolicyDocument", "Statement", 1, "Resource", "=", "*")),
    ("wide-resource", at("VpcPolicy", P, "PolicyDocument", "Statement", 0, "Action", "=", ["logs:PutLogEvents"])),
    ("managed-policy", at("LoadRole", P, "ManagedPolicyArns", "Fn::If", 1, "=", ["arn:aws:iam::aws:policy/AdministratorAccess"])),
    ("publish", grant("NotifyRole", {"Effect": "Allow", "Action": "sns:Publish*", "Resource": {"Ref": "AlarmTopicArn"}})),
    ("publish", lambda text: [one.update(Action="sns:Subscribe") for one in grants(text["Resources"]["NotifyRole"][P]) if one["Action"] == "sns:Publish*"]),
    ("database-access", lambda text: [one.update(Action="rds-db:x") for one in grants(text["Resources"]["LoadRole"][P]) if one["Action"] == "rds-db:connect"]),
    ("batch-failures", at("NotifyMapping", P, "FunctionResponseTypes")),
    ("batch-window", at("LoadMapping", P, "MaximumBatchingWindowInSeconds")),
    ("batch-window", default("BatchSize", 11)),
    ("concurrency", at("LoadMapping", P, "ScalingConfig")),
    ("age-alarm", at("LoadOldAlarm")),
    ("dead-alarm", at("RouteDeadAlarm", P, "AlarmActions")),
    ("error-alarm", at("NotifyErrorsAlarm")),
    ("error-alarm", at("MaintainErrorsAlarm")),
    ("error-alarm", at("LoadErrorsAlarm", P, "Statistic", "=", "Sum")),
    ("database-alarm", at("DatabaseDownAlarm")),
    ("database-alarm", at("DatabaseDownAlarm", P, "TreatMissingData", "=", "notBreaching")),
    ("terraform", lambda text: text["Parameters"].update(NewOne={"Type": "String"})),
]


def main(path, *options):
    text, problems = decode(path)
    assert not problems, problems
    # Its own kinds of dict and list have opinions on being changed.
    text = json.loads(json.dumps(text))
    for rule, problem in check(text):
        print(f"{path}: {rule}: {problem}")
    if check(text) or not options:
        return bool(check(text))
    roles = Template(text).of("AWS::IAM::Role")
    faults = FAULTS + [("grant", revoked(name, *one)) for name, role in roles.items() for one in allowed(role)]
    missed = 0
    for number, (rule, plant) in enumerate(faults, 1):
        faulty = copy.deepcopy(text)
        plant(faulty)
        if rule not in [found for found, _ in check(faulty)]:
            print(f"{path}: fault {number} is not found, {rule} was expected: {check(faulty)}")
            missed += 1
    print(f"{path}: {len(faults) - missed} of {len(faults)} planted faults are found")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
