output "landing_bucket" {
  value = aws_cloudformation_stack.landfall.outputs["LandingBucket"]
}

output "archive_bucket" {
  value = aws_cloudformation_stack.landfall.outputs["ArchiveBucket"]
}

output "work_bucket" {
  value = aws_cloudformation_stack.landfall.outputs["WorkBucket"]
}

output "completed_topic" {
  value = aws_cloudformation_stack.landfall.outputs["CompletedTopic"]
}

output "rejected_topic" {
  value = aws_cloudformation_stack.landfall.outputs["RejectedTopic"]
}

output "validate_queue" {
  value = aws_cloudformation_stack.landfall.outputs["ValidateQueue"]
}

output "validate_dead_queue" {
  value = aws_cloudformation_stack.landfall.outputs["ValidateDeadQueue"]
}

output "route_queue" {
  value = aws_cloudformation_stack.landfall.outputs["RouteQueue"]
}

output "route_dead_queue" {
  value = aws_cloudformation_stack.landfall.outputs["RouteDeadQueue"]
}

output "load_queue" {
  value = aws_cloudformation_stack.landfall.outputs["LoadQueue"]
}

output "load_dead_queue" {
  value = aws_cloudformation_stack.landfall.outputs["LoadDeadQueue"]
}

output "notify_queue" {
  value = aws_cloudformation_stack.landfall.outputs["NotifyQueue"]
}

output "notify_dead_queue" {
  value = aws_cloudformation_stack.landfall.outputs["NotifyDeadQueue"]
}

output "function_timeout" {
  value = lookup(aws_cloudformation_stack.landfall.outputs, "FunctionTimeout", null)
}

output "maintain_function" {
  value = lookup(aws_cloudformation_stack.landfall.outputs, "MaintainFunction", null)
}

output "load_concurrency" {
  value = lookup(aws_cloudformation_stack.landfall.outputs, "LoadConcurrency", null)
}

output "notify_concurrency" {
  value = lookup(aws_cloudformation_stack.landfall.outputs, "NotifyConcurrency", null)
}
