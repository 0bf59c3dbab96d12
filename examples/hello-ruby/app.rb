# The busiest hours of a log of instants, with nothing but Ruby's standard library.
require "time"

def handler(event:, context:)
  instants = event.fetch("instants").map { |text| Time.iso8601(text).utc }
  by_hour = instants.group_by(&:hour).transform_values(&:size).sort_by { |hour, count| [-count, hour] }
  puts "#{instants.size} instants, #{context.get_remaining_time_in_millis} ms left"
  { busiest: by_hour.first(3).map { |hour, count| { hour: hour, count: count } }, request_id: context.aws_request_id }
end
