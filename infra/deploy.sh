#!/usr/bin/env bash
# Deploys the template with the functions, or updates what is deployed. Needs the AWS CLI with credentials, and what
# `make package` has built.
#
#   infra/deploy.sh STACK CODE_BUCKET [Parameter=Value …]
#   infra/deploy.sh landfall my-code LandingBucketName=my-landing ArchiveBucketName=my-archive WorkBucketName=my-work \
#       DatabaseUrl='postgresql://landfall@db.example.org/catalogue?sslmode=verify-full' DatabaseSecret=arn:aws:…
# docs/operating.md has the whole way.
#
# Parameters that are not given stay as they are. A release lies in the code bucket under the hash of its zips: an update
# that changes nothing is none, and CodePrefix=HASH/ goes back to an earlier release, which this prints first.
# Exit codes: 0 deployed, 1 CloudFormation refused it, 2 wrong usage or set-up.
set -euo pipefail
if [ $# -lt 2 ] || [ "${1:-}" = --help ]; then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
    exit 2
fi
stack=$1 bucket=$2
shift 2
cd "$(dirname "$0")/.."
architecture=${ARCHITECTURE:-x86_64}
package=${PACKAGE:-${CARGO_TARGET_DIR:-target}/package/$architecture}
template=${TEMPLATE:-infra/landfall.yaml}
command -v aws >/dev/null || { echo "deploy: the AWS CLI is missing" >&2; exit 2; }
zips=("$package"/{validate,route,load,notify,maintain}.zip)
for zip in "${zips[@]}"; do
    [ -f "$zip" ] || { echo "deploy: $zip is missing: run \`make package\`" >&2; exit 2; }
done
release=$(cat "${zips[@]}" | sha256sum | cut -c1-16)
before=$(aws cloudformation describe-stacks --stack-name "$stack" \
    --query "Stacks[0].Parameters[?ParameterKey=='CodePrefix'].ParameterValue" --output text 2>/dev/null || true)
echo "deploy: before: ${before:-nothing is deployed}; now: $release/"
for zip in "${zips[@]}"; do
    aws s3 cp --only-show-errors "$zip" "s3://$bucket/$release/$(basename "$zip")"
done
aws cloudformation deploy --stack-name "$stack" --template-file "$template" --capabilities CAPABILITY_IAM \
    --no-fail-on-empty-changeset --parameter-overrides Workers=lambda "CodeBucket=$bucket" "CodePrefix=$release/" \
    "Architecture=$architecture" "$@" || {
    echo "deploy: what CloudFormation says, the newest first:" >&2
    aws cloudformation describe-stack-events --stack-name "$stack" --output text --max-items 200 \
        --query "StackEvents[?contains(ResourceStatus,'FAILED')].[Timestamp,LogicalResourceId,ResourceStatusReason]" >&2 || true
    exit 1
}
echo "deploy: done. Configuration: s3://WORK_BUCKET/config/; then: landfall doctor --stack $stack"
