# frozen_string_literal: true

require "socket"

# The Runtime API over one connection that stays open. HTTP as the agent speaks it, and no more.
class RuntimeClient
  # The agent has gone away; there is nobody left to work for.
  class Gone < StandardError; end

  def initialize(address)
    @address = address
    host, _, port = address.rpartition(":")
    @host, @port = host, Integer(port)
  end

  # Status, headers with lower-case names, body.
  def get(path)
    call("GET #{path} HTTP/1.1\r\nHost: #{@address}\r\n\r\n")
  end

  def post(path, body, content_type = "application/json", headers = {})
    more = headers.map { |name, value| "#{name}: #{value}\r\n" }.join
    head = "POST #{path} HTTP/1.1\r\nHost: #{@address}\r\nContent-Type: #{content_type}\r\nContent-Length: #{body.bytesize}\r\n#{more}\r\n"
    call(head.b + body.b)
  end

  private

  def call(bytes)
    connect unless @socket
    @socket.write(bytes)
    status = line.split(" ", 3)[1].to_i
    headers = {}
    until (text = line).empty?
      name, value = text.split(":", 2)
      headers[name.downcase] = value.to_s.strip
    end
    length = headers["content-length"].to_i
    body = length.zero? ? "".b : @socket.read(length)
    raise Gone, "closed in the middle of an answer" if body.nil? || body.bytesize < length
    if headers["connection"]&.downcase == "close"
      @socket.close
      @socket = nil
    end
    [status, headers, body]
  rescue SystemCallError, IOError => e
    raise Gone, e.message
  end

  def connect
    @socket = TCPSocket.new(@host, @port)
    @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    @socket.binmode
  end

  def line
    text = @socket.gets("\r\n") or raise Gone, "closed"
    text.chomp
  end
end
