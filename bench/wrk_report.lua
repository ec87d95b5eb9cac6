-- Sends a POST with so many bytes where the environment says so.
local posted = os.getenv("BENCH_POST_BYTES")
if posted then
  wrk.method = "POST"
  wrk.body = string.rep("x", tonumber(posted))
  wrk.headers["Content-Type"] = "application/octet-stream"
end

-- Prints wrk's findings as one line of JSON; `request` is left alone, so wrk sends the same bytes each time without Lua.
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"seconds": %.6f, "answered": %d, "bytes": %d, "p50_ms": %.4f, "p90_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, ' ..
    '"errors": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.duration / 1e6, summary.requests, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout, e.connect, e.read, e.write, e.status, e.timeout))
end
