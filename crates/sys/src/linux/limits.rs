//! What the machine still has to give: memory under every limit that applies, open files, the kernel's release.
//!
//! Called by the host before it reserves a pool and when it words an error. A memory cgroup answers too much with a kill,
//! even inside `fallocate`, so the limit has to be known before. All figures are snapshots: others may take the memory
//! between the look and the reservation.
//!
//! Everything read here comes from the kernel; a worker has no influence on it but by using memory.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Memory that can be reserved, and which limit says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can still be reserved; `u64::MAX` where nothing is known.
    pub bytes: u64,
    /// The limit behind the figure, for an error message: "memory.max of /sys/fs/cgroup/user.slice".
    pub source: String,
}

/// Memory this process can still reserve: the least of what each memory cgroup above it (version 1 and 2) and the machine
/// have left. Page cache that the kernel can drop counts as free.
pub fn available_memory() -> Memory {
    available_under(Path::new("/"))
}

/// Open descriptors of this process and how many it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit in force, in descriptors; `u64::MAX` for none.
    pub soft: u64,
    /// What the process may raise the limit to, in descriptors; `u64::MAX` for no bound.
    pub hard: u64,
    /// Descriptors open now; 0 where `/proc` is not mounted.
    pub used: u64,
}

/// Descriptors in use by this process and its limits.
pub fn open_files() -> OpenFiles {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // The listing itself holds one descriptor open.
    let used = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    OpenFiles { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX), used: used as u64 }
}

/// The kernel's name, as `uname -s` prints it.
pub const KERNEL: &str = "Linux";

/// The release of the running kernel, as `uname -r` prints it.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// File names of one version of the memory controller.
struct Controller {
    /// Version 2: one hierarchy for all controllers.
    unified: bool,
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with the page cache that can be dropped, children included.
    droppable: &'static str,
}

const V1: Controller = Controller {
    unified: false,
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    droppable: "total_inactive_file",
};
const V2: Controller =
    Controller { unified: true, limit: "memory.max", usage: "memory.current", droppable: "inactive_file" };

/// [`available_memory`] of the file system at `root`.
fn available_under(root: &Path) -> Memory {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let memberships = read("proc/self/cgroup");
    let machine = read("proc/meminfo").lines().find_map(|line| {
        let kib: u64 = line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Memory { bytes: kib.saturating_mul(1024), source: "MemAvailable of /proc/meminfo".to_owned() })
    });
    let mounts = read("proc/self/mountinfo");
    let groups =
        mounts.lines().filter_map(Mount::parse).filter_map(|mount| least_of_ancestors(root, &mount, &memberships));
    let unknown = || Memory { bytes: u64::MAX, source: "no known limit".to_owned() };
    machine.into_iter().chain(groups).min_by_key(|memory| memory.bytes).unwrap_or_else(unknown)
}

/// A mounted cgroup hierarchy that may hold the memory controller.
struct Mount {
    /// The cgroup that is seen at `point`; not "/" in a container that shares its host's cgroup namespace.
    top: PathBuf,
    point: PathBuf,
    controller: &'static Controller,
}

impl Mount {
    /// Reads a line of `mountinfo`: "35 31 0:32 /top /point rw,relatime shared:9 - cgroup cgroup rw,memory".
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (top, point) = (unescape(place.next()?), unescape(place.next()?));
        let mut kind = kind.split(' ');
        let controller = match kind.next()? {
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "memory") => &V1,
            "cgroup2" => &V2,
            _ => return None,
        };
        Some(Self { top: top.into(), point: point.into(), controller })
    }

    /// The cgroup of this process in this hierarchy, by a line of `/proc/self/cgroup`: "4:memory:/a/b", or "0::/a/b" in
    /// version 2.
    fn membership<'a>(&self, memberships: &'a str) -> Option<&'a Path> {
        memberships.lines().find_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let v2 = number == "0" && controllers.is_empty();
            let v1 = controllers.split(',').any(|name| name == "memory");
            let matches = if self.controller.unified { v2 } else { v1 };
            matches.then_some(Path::new(path))
        })
    }
}

/// The tightest limit of one hierarchy: that of this process's cgroup or of any cgroup above it that can be seen.
fn least_of_ancestors(root: &Path, mount: &Mount, memberships: &str) -> Option<Memory> {
    let inside = mount.membership(memberships)?;
    let point = root.join(mount.point.strip_prefix("/").ok()?);
    // In a container the path may be the outer one, or lead out of the namespace; then the mount's own top is the nearest
    // cgroup there is to see.
    let below = inside.strip_prefix(&mount.top).ok();
    let below = below.filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
    let own = below.map(|path| point.join(path)).filter(|path| path.is_dir()).unwrap_or_else(|| point.clone());
    let ancestors = own.ancestors().take_while(|group| group.starts_with(&point));
    ancestors.filter_map(|group| left_in(root, group, mount.controller)).min_by_key(|memory| memory.bytes)
}

/// What one cgroup has left; `None` if it has no limit.
fn left_in(root: &Path, group: &Path, controller: &Controller) -> Option<Memory> {
    /// Version 1 says "no limit" with the largest multiple of the page size in an `i64`.
    const UNLIMITED: u64 = 1 << 62;
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let limit: u64 = read(controller.limit)?.trim().parse().ok().filter(|limit| *limit < UNLIMITED)?;
    let usage: u64 = read(controller.usage)?.trim().parse().ok()?;
    let droppable = |line: &str| line.strip_prefix(controller.droppable)?.strip_prefix(' ')?.trim().parse().ok();
    let droppable: u64 = read("memory.stat").and_then(|stat| stat.lines().find_map(droppable)).unwrap_or(0);
    let shown = Path::new("/").join(group.strip_prefix(root).unwrap_or(group));
    Some(Memory {
        bytes: limit.saturating_sub(usage.saturating_sub(droppable)),
        source: format!("{} of {}", controller.limit, shown.display()),
    })
}

/// Undoes the escapes of `mountinfo`: `\040` for a space, and so on.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file system in a folder of its own, removed at the end of the test.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, available_kib: u64, cgroup: &str, mountinfo: &str) -> Self {
            let tree = Self(std::env::temp_dir().join(format!("frameport-limits-{name}-{}", std::process::id())));
            let meminfo = format!("MemTotal: 99 kB\nMemAvailable:   {available_kib} kB\n");
            tree.file("proc/meminfo", &meminfo).file("proc/self/cgroup", cgroup).file("proc/self/mountinfo", mountinfo);
            tree
        }

        fn file(&self, path: &str, content: &str) -> &Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            self
        }

        /// Limit, usage and droppable cache in MiB.
        fn v2(&self, group: &str, limit: &str, usage: u64, cache: u64) -> &Self {
            self.file(&format!("{group}/memory.max"), limit)
                .file(&format!("{group}/memory.current"), &format!("{}\n", usage * MIB))
                .file(&format!("{group}/memory.stat"), &format!("anon 1\ninactive_file {}\nfile 7\n", cache * MIB))
        }

        fn v1(&self, group: &str, limit: u64, usage: u64, cache: u64) -> &Self {
            let stat = format!("inactive_file 1\ntotal_inactive_file {}\n", cache * MIB);
            self.file(&format!("{group}/memory.limit_in_bytes"), &format!("{limit}\n"))
                .file(&format!("{group}/memory.usage_in_bytes"), &format!("{}\n", usage * MIB))
                .file(&format!("{group}/memory.stat"), &stat)
        }

        fn available(&self) -> (u64, String) {
            let memory = available_under(&self.0);
            (memory.bytes, memory.source)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const V2_MOUNT: &str = "41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    const V1_MOUNT: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                            36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn ancestor_of_own_cgroup_with_least_left_decides() {
        let tree = Tree::new("ancestor", 1 << 30, "0::/a/b/c\n", V2_MOUNT);
        tree.v2("sys/fs/cgroup/a/b/c", "max\n", 10, 0);
        tree.v2("sys/fs/cgroup/a/b", &format!("{}\n", 100 * MIB), 90, 30);
        tree.v2("sys/fs/cgroup/a", &format!("{}\n", 500 * MIB), 100, 0);
        tree.v2("sys/fs/cgroup/a/sibling", "1\n", 1, 0);
        assert_eq!(tree.available(), (40 * MIB, "memory.max of /sys/fs/cgroup/a/b".to_owned()));
    }

    #[test]
    fn group_over_its_limit_has_nothing_left() {
        let tree = Tree::new("over", 1 << 30, "0::/a\n", V2_MOUNT);
        tree.v2("sys/fs/cgroup/a", &format!("{MIB}\n"), 5, 0);
        assert_eq!(tree.available().0, 0);
    }

    #[test]
    fn version_1_beside_version_2_decides_when_it_has_less() {
        let mounts = format!("{V1_MOUNT}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let tree = Tree::new("hybrid", 1 << 30, "4:memory:/job\n3:pids:/x\n0::/\n", &mounts);
        tree.v1("sys/fs/cgroup/memory/job", 64 * MIB, 60, 20);
        tree.v1("sys/fs/cgroup/memory", 9_223_372_036_854_771_712, 60, 20);
        assert_eq!(tree.available(), (24 * MIB, "memory.limit_in_bytes of /sys/fs/cgroup/memory/job".to_owned()));
    }

    #[test]
    fn container_that_sees_only_its_own_group_uses_the_top_of_the_mount() {
        let mount = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,cpu,memory\n";
        for (name, path) in [("shared", "/docker/ab"), ("outer", "/elsewhere/ab"), ("escape", "/../../x")] {
            let tree = Tree::new(name, 1 << 30, &format!("4:cpu,memory:{path}\n"), mount);
            tree.v1("sys/fs/cgroup/memory", 64 * MIB, 4, 0);
            let source = "memory.limit_in_bytes of /sys/fs/cgroup/memory";
            assert_eq!(tree.available(), (60 * MIB, source.to_owned()), "membership {path}");
        }
    }

    #[test]
    fn own_group_below_a_mount_of_a_subtree_is_found() {
        let mount = "41 31 0:38 /outer /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n";
        let tree = Tree::new("subtree", 1 << 30, "0::/outer/job\n", mount);
        tree.v2("mnt/my groups/job", &format!("{}\n", 8 * MIB), 1, 0);
        assert_eq!(tree.available(), (7 * MIB, "memory.max of /mnt/my groups/job".to_owned()));
    }

    #[test]
    fn machine_decides_without_limits_or_with_limits_above_it() {
        let tree = Tree::new("machine", 2048, "0::/a\n", V2_MOUNT);
        tree.v2("sys/fs/cgroup/a", "max\n", 1, 0);
        assert_eq!(tree.available(), (2 * MIB, "MemAvailable of /proc/meminfo".to_owned()));
        tree.v2("sys/fs/cgroup/a", &format!("{}\n", 900 * MIB), 1, 0);
        assert_eq!(tree.available().0, 2 * MIB);
    }

    #[test]
    fn broken_or_missing_files_mean_no_known_limit() {
        let tree = Tree::new("broken", 0, "0::\nnonsense\n::::\n", "1 2 3\n - cgroup\n4 5 6 7 8 9 - cgroup x\n");
        tree.file("proc/meminfo", "MemAvailable: lots\n");
        assert_eq!(tree.available(), (u64::MAX, "no known limit".to_owned()));
    }
}
