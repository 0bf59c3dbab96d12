//! wrk as load generator: requests per second over many connections, for a fixed time.

use std::process::Stdio;

/// Requests per second against a path on 127.0.0.1. Any answer that is not a 2xx or 3xx is an error.
pub(crate) async fn rate(port: u16, path: &str, connections: usize, seconds: u32) -> crate::Result<f64> {
    let output = tokio::process::Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "10s"])
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| format!("wrk: {e}"))?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> crate::Result<f64> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("wrk saw errors:\n{text}").into());
    }
    let rate = text.lines().find_map(|l| l.trim().strip_prefix("Requests/sec:"));
    Ok(rate.ok_or_else(|| format!("wrk said no rate:\n{text}"))?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_only_when_every_answer_was_good() {
        let good = "  1000 requests in 2.00s, 1MB read\nRequests/sec:  13572.91\nTransfer/sec:      1.5MB\n";
        assert_eq!(parse(good).unwrap(), 13_572.91);
        assert!(parse(&format!("{good}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(parse("").is_err());
    }
}
