//! What the figures were measured on.

use serde_json::{Value, json};

use crate::cores::Cores;

/// Processor, kernel, cores, load and versions.
pub(crate) fn describe(cores: &Cores, python: Option<&str>) -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let uname = rustix::system::uname();
    json!({
        "cpu": model.map_or("unknown", |(_, model)| model.trim()),
        "architecture": uname.machine().to_string_lossy(),
        "cores": cores.count(),
        "kernel": format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        "load": read("/proc/loadavg").trim(),
        "frameport": env!("CARGO_PKG_VERSION"),
        "python": python,
    })
}
