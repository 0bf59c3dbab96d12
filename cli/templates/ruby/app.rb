def handler(event:, context:)
  name = event.fetch("name", "world")
  puts "greeting #{name}, #{context.get_remaining_time_in_millis} ms left"
  { message: "Hello, #{name}!" }
end
