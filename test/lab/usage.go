// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process takes of the machine.
type Usage struct {
	RSS     int           // KiB, proc_pid_status(5)
	Files   int           // open descriptors
	Threads int           // kernel threads of it
	CPU     time.Duration // user and system since its start
}

// UsageOf looks at a process; zero if there is none.
func UsageOf(pid int) Usage {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	var u Usage
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "VmRSS":
			u.RSS, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		case "Threads":
			u.Threads, _ = strconv.Atoi(strings.TrimSpace(value))
		}
	}
	u.Files = len(listDir(filepath.Join(dir, "fd")))
	u.CPU = cpuTime(dir)
	return u
}

// cpuTime is utime and stime of proc_pid_stat(5), which count hundredths of a
// second (USER_HZ).
func cpuTime(dir string) time.Duration {
	stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Ran is how long the threads of a process that are there have run, to the nanosecond;
// what interrupts did meanwhile included, where the kernel doesn't tell that apart.
func Ran(pid int) (sum time.Duration) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
	for _, task := range listDir(dir) {
		text, _ := os.ReadFile(filepath.Join(dir, task, "schedstat"))
		ns, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(ns, 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

// Busy is for how long the machine's processors had something to do since its start,
// interrupts included: proc_stat(5), in hundredths of a second.
func Busy() time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	sum := 0
	for i, word := range strings.Fields(first) {
		if n, err := strconv.Atoi(word); err == nil && i != 4 && i != 5 && i < 9 { // idle, iowait; guests are in user
			sum += n
		}
	}
	return time.Duration(sum) * 10 * time.Millisecond
}

// String is for the log of a test.
func (u Usage) String() string {
	return fmt.Sprintf("RSS %.1f MiB, %d files, %d threads", float64(u.RSS)/1024, u.Files, u.Threads)
}

// Sysctl sets a kernel parameter of the host for as long as the lab lives, if it
// is lower than that.
func (l *Lab) Sysctl(name string, atLeast int) {
	l.t.Helper()
	old := strings.TrimSpace(l.Run("sysctl", "-n", name))
	if n, err := strconv.Atoi(old); err == nil && n >= atLeast {
		return
	}
	l.Run("sysctl", "-q", "-w", fmt.Sprintf("%s=%d", name, atLeast))
	l.t.Cleanup(func() { l.Run("sysctl", "-q", "-w", name+"="+old) })
}
