# Landfall for those who live in Terraform: a thin module that deploys the one template, so that there is nothing here to
# differ from it. Checked for syntax only (terraform fmt): no test of this repository runs it. CloudFormation does not tell
# DatabaseUrl (NoEcho), so every plan shows it as changed: apply that, and do not ignore changes of the parameters.
#
#   module "landfall" {
#     source              = "git::https://…/landfall.git//infra/terraform"
#     landing_bucket_name = "my-landing"
#     archive_bucket_name = "my-archive"
#     work_bucket_name    = "my-work"
#     workers             = "lambda"
#     code_bucket         = "my-code"
#     code_prefix         = "0f3a…/" # a prefix for each release: the zips of target/package, put there first
#     database_url        = "postgresql://landfall@db.example.org:5432/catalogue?sslmode=verify-full&sslrootcert=/var/task/database-ca.pem"
#     database_secret     = aws_secretsmanager_secret.landfall.arn # of the role landfall, not of the database's owner
#   }

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

resource "aws_cloudformation_stack" "landfall" {
  name          = var.name
  template_body = file("${path.module}/../landfall.yaml")
  capabilities  = ["CAPABILITY_IAM"]
  tags          = var.tags

  parameters = {
    LandingBucketName     = var.landing_bucket_name
    ArchiveBucketName     = var.archive_bucket_name
    WorkBucketName        = var.work_bucket_name
    MoreLandingBucketArns = join(",", var.more_landing_bucket_arns)
    MoreArchiveBucketArns = join(",", var.more_archive_bucket_arns)
    Workers               = var.workers
    CodeBucket            = var.code_bucket
    CodePrefix            = var.code_prefix
    Architecture          = var.architecture
    OtlpEndpoint          = var.otlp_endpoint
    DatabaseUrl           = var.database_url
    DatabaseSecret        = var.database_secret
    DatabaseSecretKeyArn  = var.database_secret_key_arn
    DatabaseIamArn        = var.database_iam_arn
    SubnetIds             = join(",", var.subnet_ids)
    SecurityGroupIds      = join(",", var.security_group_ids)
    FunctionTimeout       = tostring(var.function_timeout)
    ValidateConcurrency   = tostring(var.validate_concurrency)
    RouteConcurrency      = tostring(var.route_concurrency)
    LoadConcurrency       = tostring(var.load_concurrency)
    NotifyConcurrency     = tostring(var.notify_concurrency)
    BatchSize             = tostring(var.batch_size)
    BatchWindow           = tostring(var.batch_window)
    LoadBatchSize         = tostring(var.load_batch_size)
    LoadBatchWindow       = tostring(var.load_batch_window)
    LogRetentionDays      = tostring(var.log_retention_days)
    AlarmTopicArn         = var.alarm_topic_arn
    AgeAlarmSeconds       = tostring(var.age_alarm_seconds)
    RequireTls            = var.require_tls
    VisibilityTimeout     = tostring(var.visibility_timeout)
    MaxReceiveCount       = tostring(var.max_receive_count)
    AfterRoute            = var.after_route
  }
}
