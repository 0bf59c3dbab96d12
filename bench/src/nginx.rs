//! The control for warm calls: nginx with upstream keep-alive in front of the same program.

use std::process::{Child, Command, Stdio};

use crate::docker::free_port;

/// A running nginx; stopped when dropped.
pub(crate) struct Nginx {
    child: Child,
    _folder: tempfile::TempDir,
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
}

impl Nginx {
    /// Starts nginx with that many workers in front of a port, on the given cores (as `taskset` names them).
    pub(crate) async fn start(upstream: u16, workers: usize, cores: &str) -> crate::Result<Self> {
        let folder = tempfile::Builder::new().prefix("davit-bench-").tempdir_in("/tmp")?;
        let port = free_port()?;
        let dir = folder.path().display();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes {workers};\npid {dir}/pid;\nerror_log {dir}/error.log;\nevents {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};\n\
             keepalive_requests 10000000;\nupstream app {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 10000000; }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass http://app; }} }} }}\n",
        );
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text)?;
        let child = Command::new("taskset")
            .args(["-c", cores, "nginx", "-c"])
            .arg(&config)
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self { child, _folder: folder, port };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(nginx);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Err("nginx did not start".into())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
