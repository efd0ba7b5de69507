// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// labMark is the environment variable by which a lab knows its processes.
const labMark = "SLUICE_LAB"

// footprint is what the machine had before a lab.
type footprint struct {
	links []string // interfaces of the host's namespace
	fds   int      // of this process
}

func takeFootprint() footprint {
	return footprint{links: hostLinks(), fds: len(openFiles())}
}

// checkLeaks fails the test for everything that a lab or its daemon has left.
// It looks again for a while: the kernel takes namespaces down in its own time.
func (l *Lab) checkLeaks() {
	l.t.Helper()
	var left []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = l.leaks(); len(left) == 0 {
			return
		}
	}
	for _, what := range left {
		l.t.Errorf("left behind: %s", what)
	}
}

func (l *Lab) leaks() []string {
	var left []string
	for _, n := range listDir("/run/netns") {
		if strings.HasPrefix(n, l.id+"-") {
			left = append(left, "namespace "+n)
		}
	}
	for _, m := range mountsUnder(l.dir) {
		left = append(left, "mount "+m)
	}
	for _, link := range hostLinks() {
		// slt- is what other tests, which may run beside this one, call theirs.
		ours := strings.HasPrefix(link, l.id) || !strings.HasPrefix(link, "slt-")
		if ours && !slices.Contains(l.before.links, link) {
			left = append(left, "interface "+link+" in the host's namespace")
		}
	}
	for _, p := range l.processes() {
		left = append(left, "process "+p)
	}
	if now := openFiles(); len(now) > l.before.fds {
		left = append(left, fmt.Sprintf("files of this process: %d, before %d: %v", len(now), l.before.fds, now))
	}
	return left
}

// processes are those that carry the lab's mark in their environment, or its
// directory in their command line.
func (l *Lab) processes() []string {
	var found []string
	for _, pid := range listDir("/proc") {
		env, _ := os.ReadFile(filepath.Join("/proc", pid, "environ"))
		cmd, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		marked := bytes.Contains(env, []byte(labMark+"="+l.dir+"\x00")) || bytes.HasPrefix(cmd, []byte("sluiced\x00dataplane\x00")) && l.holds(pid)
		if len(cmd) > 0 && (marked || bytes.Contains(cmd, []byte(l.dir))) {
			found = append(found, pid+" "+string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	if d := l.daemon; d != nil && alive(d.dataplane) {
		found = append(found, fmt.Sprintf("%d, the dataplane", d.dataplane))
	}
	return found
}

// holds reports whether a process has a file of the lab's directory open: a dataplane
// has no other mark.
func (l *Lab) holds(pid string) bool {
	fds := filepath.Join("/proc", pid, "fd")
	return slices.ContainsFunc(listDir(fds), func(fd string) bool {
		to, _ := os.Readlink(filepath.Join(fds, fd))
		return strings.HasPrefix(to, l.dir+"/")
	})
}

// mountsUnder are the mount points below a directory, proc_pid_mountinfo(5).
func mountsUnder(dir string) []string {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found
}

func hostLinks() []string {
	ifs, _ := net.Interfaces()
	var names []string
	for _, i := range ifs {
		names = append(names, i.Name)
	}
	return names
}

// openFiles are the descriptors of this process, without the runtime's own
// poller, which it opens at the first need and keeps.
func openFiles() []string {
	var files []string
	for _, fd := range listDir("/proc/self/fd") {
		to, err := os.Readlink("/proc/self/fd/" + fd)
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && to != "/proc/self/fd" && !strings.HasPrefix(to, "/proc/") {
			files = append(files, fd+" "+to)
		}
	}
	return files
}

func listDir(dir string) []string {
	entries, _ := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
