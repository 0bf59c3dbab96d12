# frozen_string_literal: true

# What AWS's context object has.
class LambdaContext
  attr_reader :aws_request_id, :invoked_function_arn, :deadline_ms, :identity, :client_context, :function_name, :function_version,
              :memory_limit_in_mb, :log_group_name, :log_stream_name

  def initialize(function, headers)
    @aws_request_id = headers["lambda-runtime-aws-request-id"]
    @invoked_function_arn = headers["lambda-runtime-invoked-function-arn"]
    @deadline_ms = headers["lambda-runtime-deadline-ms"].to_i
    @identity = parse(headers["lambda-runtime-cognito-identity"])
    @client_context = parse(headers["lambda-runtime-client-context"])
    @function_name = function["function_name"]
    @function_version = function["version"].to_s
    @memory_limit_in_mb = function["memory_mb"].to_s
    @log_group_name = function["log_group"]
    @log_stream_name = function["log_stream"]
  end

  def get_remaining_time_in_millis
    left = @deadline_ms - (Time.now.to_f * 1000).to_i
    left.positive? ? left : 0
  end

  private

  def parse(text)
    text && JSON.parse(text)
  rescue JSON::ParserError
    nil
  end
end
