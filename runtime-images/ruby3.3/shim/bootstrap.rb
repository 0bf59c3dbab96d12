# frozen_string_literal: true

# The Ruby runtime: started before the function is known, so that a cold start has little left to do.
#
# Life: load what functions usually load, wait for /davit/init, become the function, serve until the agent hangs up. The handler is
# called as AWS calls it: `handler(event:, context:)`. Started by the agent (DAVIT_RUNTIME_COMMAND).

require "json"
require "logger"
require "net/http"
require "openssl"
require "securerandom"
require "set"
require "time"
require "uri"
require_relative "client"
require_relative "context"

TASK_ROOT = ENV.fetch("LAMBDA_TASK_ROOT", "/var/task")
API = "/2018-06-01/runtime"
# The folder of gems that belongs to this version of Ruby.
GEM_VERSION = RbConfig::CONFIG["ruby_version"]

# A failure that the runtime itself names.
class Fault < StandardError
  attr_reader :kind

  def initialize(kind, message)
    super(message)
    @kind = kind
  end
end

module Runtime
  module_function

  # Environment, folder and paths of the function, from the platform's description of it.
  def become(function)
    region = function["arn"].to_s.split(":")[3]
    region = "us-east-1" if region.nil? || region.empty?
    usual = { "TZ" => ":UTC", "AWS_REGION" => region, "AWS_DEFAULT_REGION" => region, "AWS_XRAY_CONTEXT_MISSING" => "LOG_ERROR" }
    usual.each { |name, value| ENV[name] ||= value }
    (function["env"] || {}).each { |name, value| ENV[name] = value }
    ENV.update(
      "_HANDLER" => function["handler"].to_s, "AWS_EXECUTION_ENV" => "AWS_Lambda_ruby3.3",
      "AWS_LAMBDA_FUNCTION_NAME" => function["function_name"], "AWS_LAMBDA_FUNCTION_VERSION" => function["version"].to_s,
      "AWS_LAMBDA_FUNCTION_MEMORY_SIZE" => function["memory_mb"].to_s, "AWS_LAMBDA_INITIALIZATION_TYPE" => "on-demand",
      "AWS_LAMBDA_LOG_GROUP_NAME" => function["log_group"], "AWS_LAMBDA_LOG_STREAM_NAME" => function["log_stream"],
      "LAMBDA_TASK_ROOT" => TASK_ROOT, "LAMBDA_RUNTIME_DIR" => "/var/runtime"
    )
    Dir.chdir(TASK_ROOT)
    $LOAD_PATH.unshift(TASK_ROOT, "/opt/ruby/lib")
    gems = ["#{TASK_ROOT}/vendor/bundle/ruby/#{GEM_VERSION}", "/opt/ruby/gems/#{GEM_VERSION}", *ENV["GEM_PATH"].to_s.split(":")]
    ENV["GEM_PATH"] = gems.uniq.join(":")
    Gem.paths = { "GEM_HOME" => gems.first, "GEM_PATH" => (gems + Gem.default_path).uniq.join(":") }
  end

  # What the handler's name stands for, as something that can be called.
  def load_handler(name)
    file, *names = name.split(".")
    raise Fault.new("Runtime.MalformedHandlerName", "Bad handler '#{name}': write file.method or file.Class.method") if names.empty?

    begin
      require File.expand_path(file, TASK_ROOT)
    rescue LoadError => e
      raise Fault.new("Runtime.ImportModuleError", "Unable to load '#{file}': #{e.message}")
    rescue SyntaxError => e
      raise Fault.new("Runtime.UserCodeSyntaxError", e.message)
    end
    method = names.pop.to_sym
    owner = names.empty? ? TOPLEVEL_BINDING.receiver : names.join("::").split("::").reduce(Object) { |from, const| from.const_get(const, false) }
    unless owner.respond_to?(method, true)
      raise Fault.new("Runtime.HandlerNotFound", "Handler '#{name}': #{file}.rb has no such method")
    end
    owner.method(method)
  rescue NameError => e
    raise e unless e.instance_of?(NameError) && names && e.receiver.is_a?(Module)

    raise Fault.new("Runtime.HandlerNotFound", "Handler '#{name}': #{e.message}")
  end

  def describe(error)
    kind = error.is_a?(Fault) ? error.kind : "Function<#{error.class}>"
    { errorMessage: error.message.dup.force_encoding("UTF-8").scrub, errorType: kind, stackTrace: error.backtrace || [] }
  end

  def report(client, path, error)
    document = describe(error)
    warn("#{document[:errorType]}: #{document[:errorMessage]}", *document[:stackTrace].first(20).map { |line| "    #{line}" })
    $stderr.flush
    client.post(path, JSON.generate(document), "application/json", "Lambda-Runtime-Function-Error-Type" => document[:errorType][/\A[\w.]+/])
  end

  def serve(client, handler, function)
    loop do
      status, headers, body = client.get("#{API}/invocation/next")
      id = headers["lambda-runtime-aws-request-id"]
      exit!(1) if status != 200 || id.nil?
      trace = headers["lambda-runtime-trace-id"]
      trace.nil? ? ENV.delete("_X_AMZN_TRACE_ID") : ENV["_X_AMZN_TRACE_ID"] = trace
      invoke(client, handler, function, headers, body, id)
    end
  end

  def invoke(client, handler, function, headers, body, id)
    begin
      event = JSON.parse(body.force_encoding("UTF-8"))
    rescue JSON::ParserError => e
      return report(client, "#{API}/invocation/#{id}/error", Fault.new("Runtime.UnmarshalError", "Unable to unmarshal input: #{e.message}"))
    end
    answer = JSON.generate(handler.call(event: event, context: LambdaContext.new(function, headers)))
    $stdout.flush
    client.post("#{API}/invocation/#{id}/response", answer)
  rescue RuntimeClient::Gone
    exit!(0)
  rescue JSON::GeneratorError => e
    report(client, "#{API}/invocation/#{id}/error", Fault.new("Runtime.MarshalError", "Unable to marshal response: #{e.message}"))
  rescue StandardError, ScriptError, SystemStackError, NoMemoryError => e
    report(client, "#{API}/invocation/#{id}/error", e)
  end

  def main
    $stdout.sync = true
    client = RuntimeClient.new(ENV.fetch("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"))
    # Code that has run once is quicker, and its garbage is gone before it counts.
    describe(Fault.new("", JSON.generate(JSON.parse('{"a":[1,null,"b"]}'))))
    GC.start
    Process.warmup if Process.respond_to?(:warmup)
    status, _, body = client.get("/davit/init")
    exit!(1) if status != 200
    function = JSON.parse(body.force_encoding("UTF-8"))
    become(function)
    begin
      handler = load_handler(function["handler"].to_s)
    rescue StandardError, ScriptError => e
      report(client, "#{API}/init/error", e)
      exit!(1)
    end
    loops = [function["concurrency"].to_i, 1].max
    return serve(client, handler, function) if loops == 1

    address = ENV.fetch("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    Array.new(loops) { Thread.new { serve(RuntimeClient.new(address), handler, function) } }.each(&:join)
  rescue RuntimeClient::Gone
    exit!(0)
  end
end

Runtime.main
