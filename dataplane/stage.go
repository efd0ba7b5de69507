// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The fds that the agent gives to the process; 0 to 2 are openStdio's.
const (
	fdControl  = 3 + iota // first connection, SOCK_SEQPACKET
	fdListen              // bound, not yet listening; if options.listen
	fdCounters            // trace.CreateCounters; if options.counters
	fdConns               // conntrack.CreateFile; if options.conns
	fdFirstOther
	// fdProgram is what stage 1 was executed from; stage 2 has it no more.
	fdProgram = fdFirstOther
)

// DefaultUID is the dataplane's user and group: a number of its own, so that no
// other process may send it signals or look into it. Distributions hand out
// numbers below 65536, of which nobody (65534) is shared by many services and NFS;
// subordinate ones end below 600100000, systemd-nspawn's at 1879048191, those that
// SSSD computes for directory users at 2000200000, and systemd has a use for
// those from 2147352576 on. It has no name, no home and no entry anywhere.
const DefaultUID = 0x7d534c55 // 2102611029

const (
	// maxFiles is RLIMIT_NOFILE: each port there can be, once more for what is
	// staged, and the workers' own.
	maxFiles = 1 << 17
	// backlog of the listening socket. Agents come one at a time, so this is for
	// those that gave up waiting on a process that hangs.
	backlog = 64
)

// options are what the agent tells the process on its command line.
type options struct {
	stage    int
	listen   bool
	counters bool
	conns    bool
	workers  int
	flows    int
	busyPoll time.Duration
	level    slog.Level
	owner    int
	uid      uint
	alone    time.Duration
	connects bool
	build    string
}

// args returns the command line that parseOptions reads.
func (o options) args() []string {
	return []string{
		"-stage=" + strconv.Itoa(o.stage),
		"-listen=" + strconv.FormatBool(o.listen),
		"-counters=" + strconv.FormatBool(o.counters),
		"-connections=" + strconv.FormatBool(o.conns),
		"-workers=" + strconv.Itoa(o.workers),
		"-flows=" + strconv.Itoa(o.flows),
		"-busy-poll=" + o.busyPoll.String(),
		"-log=" + o.level.String(),
		"-owner=" + strconv.Itoa(o.owner),
		"-uid=" + strconv.FormatUint(uint64(o.uid), 10),
		"-alone=" + o.alone.String(),
		connectsArg(o.connects),
		"-build=" + o.build,
	}
}

func connectsArg(is bool) string { return "-connects=" + strconv.FormatBool(is) }

// settings are what a process was told of how to work, whoever started it.
func (o options) settings() string {
	o.stage, o.owner, o.build = 0, 0, ""
	return strings.Join(o.args(), " ")
}

// parseOptions is strict: nobody writes this command line by hand.
func parseOptions(args []string) (o options, err error) {
	f := flag.NewFlagSet("dataplane", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.IntVar(&o.stage, "stage", 0, "")
	f.BoolVar(&o.listen, "listen", false, "")
	f.BoolVar(&o.counters, "counters", false, "")
	f.BoolVar(&o.conns, "connections", false, "")
	f.IntVar(&o.workers, "workers", 0, "")
	f.IntVar(&o.flows, "flows", 0, "")
	f.DurationVar(&o.busyPoll, "busy-poll", 0, "")
	f.TextVar(&o.level, "log", slog.LevelInfo, "")
	f.IntVar(&o.owner, "owner", 0, "")
	f.UintVar(&o.uid, "uid", 0, "")
	f.DurationVar(&o.alone, "alone", 0, "")
	f.BoolVar(&o.connects, "connects", false, "")
	f.StringVar(&o.build, "build", "", "")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if f.NArg() != 0 || o.stage < 1 || o.stage > 2 {
		return options{}, errors.New("this is started by the agent, not by hand")
	}
	return o, nil
}

// Main is what the program runs for the arguments that follow its word
// "dataplane", and returns its exit code. It is not for people: the agent's
// Start gives it those arguments, and fds. It comes in two stages, one exec
// apart, so that every thread of the second has the reduced credentials that
// one thread of the first gave up.
func Main(args []string) int {
	o, err := parseOptions(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sluiced dataplane:", err)
		return 2
	}
	if o.stage == 1 {
		err = stage1(o)
	} else {
		err = stage2(o)
	}
	if err != nil {
		return 1
	}
	return 0
}

// stage1 gives up everything that the second stage must not have, and becomes
// it. The namespaces are new already (spawn). It returns only with an error,
// which the agent was told.
func stage1(o options) error {
	// What is given up is this thread's: it is the one that calls execve(2).
	runtime.LockOSThread()
	o.stage, o.build = 2, BuildID() // the next user may not read the program
	err := reduce(o)
	if err == nil {
		argv := append([]string{"sluiced", "dataplane"}, o.args()...)
		err = os.NewSyscallError("execve", syscall.Exec(self, argv, environment(o.workers)))
	}
	if c, connErr := fileConn(fdControl); connErr == nil {
		c.send(failure("stage 1", err), time.Now().Add(time.Second))
	}
	return err
}

// self is this program, whatever became of its file.
const self = "/proc/self/exe"

// failure is what the agent is told of a process that ends before it is ready.
func failure(field string, err error) message {
	return message{kind: kindFailed, body: encode(RefusedError{Field: field, Message: err.Error()})}
}

// spareProcs is how many goroutines can run while every worker is busy. A worker
// never gives way to one, and host stacks answer from goroutines.
const spareProcs = 2

// environment is what the Go runtime reads, and nothing else.
func environment(workers int) []string {
	env := []string{
		// The runtime would find out about CPUs from its cgroup's files, as this
		// process did, and keep those open: no file may be.
		"GOMAXPROCS=" + strconv.Itoa(workers+spareProcs),
		"GODEBUG=" + strings.TrimLeft(os.Getenv("GODEBUG")+",containermaxprocs=0", ","),
		"TZ=", // UTC, without a look at files that are not there
	}
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOTRACEBACK", "GORACE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// reduce takes privileges from the calling thread. The order matters: each step
// needs what a later one gives up.
func reduce(o options) error {
	id := uintptr(o.uid)
	steps := []struct {
		what string
		do   func() error
	}{
		{"rlimit", limit},
		{"capability bounding set", dropBounding},
		{"setgroups", dropGroups},
		{"setresgid", func() error { return rawSyscall(unix.SYS_SETRESGID, id, id, id) }},
		{"setresuid", func() error { return rawSyscall(unix.SYS_SETRESUID, id, id, id) }},
		{"capset", dropCapabilities},
		{"no_new_privs", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
		{"listen", func() error { return o.startListening() }},
		// The agent's other fds close on exec; so do those that it inherited.
		{"close_range", func() error {
			return unix.CloseRange(fdFirstOther, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

func dropGroups() error {
	if keepsGroups() {
		return nil
	}
	return rawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
}

// rawSyscall acts on the calling thread alone, unlike the functions of package
// syscall, which act on all.
func rawSyscall(nr, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// startListening makes the control socket accept connections. That it is done
// here, as the new user, is what Connect recognises the process by.
func (o options) startListening() error {
	if !o.listen {
		return nil
	}
	return unix.Listen(fdListen, backlog)
}

// limit sets the resource limits: no core dump (it would hold the containers'
// traffic), an end for each file that it may still write to, fds for all ports.
func limit() error {
	if err := setLimit(unix.RLIMIT_CORE, 0); err != nil {
		return err
	}
	if err := setLimit(unix.RLIMIT_FSIZE, MaxBody); err != nil {
		return err
	}
	err := setLimit(unix.RLIMIT_NOFILE, maxFiles)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	// Without CAP_SYS_RESOURCE it is as many as the agent may have.
	var may syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &may); err != nil {
		return err
	}
	return setLimit(unix.RLIMIT_NOFILE, may.Max)
}

// setLimit sets both limits. syscall's function it is: for RLIMIT_NOFILE it also
// tells syscall.Exec not to put the old one back.
func setLimit(resource int, value uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: value, Max: value})
}

// dropBounding empties the bounding and ambient sets (capabilities(7)): no
// program that is executed ever has a capability.
func dropBounding() error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // past the last one that the kernel knows
		}
		if err != nil {
			return err
		}
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// dropCapabilities empties the sets that are left; setresuid has emptied all but
// the inheritable one.
func dropCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&hdr, &none[0])
}
