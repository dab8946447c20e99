variable "name" {
  type        = string
  description = "The stack's name."
  default     = "landfall"
}

variable "tags" {
  type        = map(string)
  description = "Tags of the stack and of all that it makes."
  default     = {}
}

variable "landing_bucket_name" {
  type        = string
  description = "Where providers drop files. Named here, because the queue's policy must know it before it exists."
}

variable "archive_bucket_name" {
  type        = string
  description = "The destination that a bucket map can name; more_archive_bucket_arns has others."
}

variable "work_bucket_name" {
  type        = string
  description = "Landfall's own small bucket for configuration, documents that outgrow a message, and zips."
}

variable "more_landing_bucket_arns" {
  type        = list(string)
  description = "Buckets outside of this stack where providers drop files too: they may send events to the validate queue, and the functions may read them. What they send is set on them."
  default     = []
}

variable "more_archive_bucket_arns" {
  type        = list(string)
  description = "Destinations outside of this stack that a bucket map can name, of this partition; versioned, as its own."
  default     = []
}

variable "workers" {
  type        = string
  description = "Whether the stages run as long pollers elsewhere, or as functions of this stack."
  default     = "external"

  validation {
    condition     = contains(["external", "lambda"], var.workers)
    error_message = "One of: external, lambda."
  }
}

variable "code_bucket" {
  type        = string
  description = "The bucket with validate.zip, route.zip, load.zip, notify.zip and maintain.zip; used where Workers is lambda."
  default     = "not-used"
}

variable "code_prefix" {
  type        = string
  description = "The start of the zips' keys."
  default     = ""
}

variable "architecture" {
  type        = string
  description = "The functions' processor: x86_64 or arm64."
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "One of: x86_64, arm64."
  }
}

variable "otlp_endpoint" {
  type        = string
  description = "An OpenTelemetry collector that takes traces by OTLP over HTTP, http://host:4318, a Lambda layer's for example; used where Workers is lambda. Without one none are sent."
  default     = ""
}

variable "database_url" {
  type        = string
  description = "The catalogue, postgresql://user@host:port/database; used where Workers is lambda. Its password comes from DatabaseSecret, from DatabaseIamArn, or stands in it."
  default     = ""
  sensitive   = true
}

variable "database_secret" {
  type        = string
  description = "The ARN of the secret with the database's password, as RDS keeps it in Secrets Manager."
  default     = ""
}

variable "database_secret_key_arn" {
  type        = string
  description = "The customer-managed key that the secret is under, where it has one."
  default     = ""
}

variable "database_iam_arn" {
  type        = string
  description = "In place of a password: arn:PARTITION:rds-db:REGION:ACCOUNT:dbuser:RESOURCE/USER, as whom the functions connect with tokens of their roles."
  default     = ""
}

variable "subnet_ids" {
  type        = list(string)
  description = "Private subnets for the functions, where the database is in a VPC. They need a way to S3, SQS, SNS and Secrets Manager: endpoints or NAT."
  default     = []
}

variable "security_group_ids" {
  type        = list(string)
  description = "The functions' security groups there; the database's must let them in."
  default     = []
}

variable "function_timeout" {
  type        = number
  description = "Seconds that one invocation may take."
  default     = 60
}

variable "validate_concurrency" {
  type        = number
  description = "Most validate functions at a time."
  default     = 20

  validation {
    condition     = var.validate_concurrency >= 2 && var.validate_concurrency <= 1000
    error_message = "From 2 to 1000."
  }
}

variable "route_concurrency" {
  type        = number
  description = "Most route functions at a time."
  default     = 20

  validation {
    condition     = var.route_concurrency >= 2 && var.route_concurrency <= 1000
    error_message = "From 2 to 1000."
  }
}

variable "load_concurrency" {
  type        = number
  description = "Most load functions at a time, each with one connection: with those of notify no more than the database spares."
  default     = 4

  validation {
    condition     = var.load_concurrency >= 2 && var.load_concurrency <= 1000
    error_message = "From 2 to 1000."
  }
}

variable "notify_concurrency" {
  type        = number
  description = "Most notify functions at a time, each with one connection."
  default     = 4

  validation {
    condition     = var.notify_concurrency >= 2 && var.notify_concurrency <= 1000
    error_message = "From 2 to 1000."
  }
}

variable "batch_size" {
  type        = number
  description = "Most events that validate, route and notify are given at once."
  default     = 10

  validation {
    condition     = var.batch_size >= 1 && var.batch_size <= 10000
    error_message = "From 1 to 10000."
  }
}

variable "batch_window" {
  type        = number
  description = "Seconds in which their batch is gathered; at least 1 where it may have more than 10."
  default     = 0

  validation {
    condition     = var.batch_window >= 0 && var.batch_window <= 300
    error_message = "From 0 to 300."
  }
}

variable "load_batch_size" {
  type        = number
  description = "Most documents that load is given at once."
  default     = 100

  validation {
    condition     = var.load_batch_size >= 1 && var.load_batch_size <= 10000
    error_message = "From 1 to 10000."
  }
}

variable "load_batch_window" {
  type        = number
  description = "Seconds in which load's batch is gathered."
  default     = 1

  validation {
    condition     = var.load_batch_window >= 1 && var.load_batch_window <= 300
    error_message = "From 1 to 300."
  }
}

variable "log_retention_days" {
  type        = number
  description = "How long the functions' logs are kept."
  default     = 30
}

variable "alarm_topic_arn" {
  type        = string
  description = "The topic that alarms are sent to; without it they only show."
  default     = ""
}

variable "age_alarm_seconds" {
  type        = number
  description = "The age of a queue's oldest message that is alarming."
  default     = 900
}

variable "require_tls" {
  type        = string
  description = "Whether buckets and queues refuse requests without TLS; a local endpoint has none."
  default     = "true"

  validation {
    condition     = contains(["true", "false"], var.require_tls)
    error_message = "One of: true, false."
  }
}

variable "visibility_timeout" {
  type        = number
  description = "Seconds that a received message stays invisible; at least six times FunctionTimeout."
  default     = 360
}

variable "max_receive_count" {
  type        = number
  description = "Receives after which SQS itself moves a message to the dead letters: the net for crashes. More than `receives_max` in the configuration, after which Landfall re-sends with a delay."
  default     = 6

  validation {
    condition     = var.max_receive_count >= 5
    error_message = "From 5."
  }
}

variable "after_route" {
  type        = string
  description = "What notify has the right to do with completed objects in the landing bucket; `after_route` of a landing in the configuration asks for it."
  default     = "keep"

  validation {
    condition     = contains(["keep", "delete", "tag"], var.after_route)
    error_message = "One of: keep, delete, tag."
  }
}
