-- POST of one body, kept alive; figures as one line of JSON at the end.
local function file(name)
    local handle = assert(io.open(name, "rb"))
    local text = handle:read("*a")
    handle:close()
    return text
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local authorization = os.getenv("BENCH_AUTHORIZATION")
if authorization and authorization ~= "" then wrk.headers["Authorization"] = authorization end
wrk.body = file(os.getenv("BENCH_BODY"))

-- Paced where it is to make so many calls and no more.
local pause_ms = tonumber(os.getenv("BENCH_PAUSE_MS") or "0")
if pause_ms > 0 then
    function delay() return pause_ms end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\n{"calls": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
