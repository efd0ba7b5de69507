// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// The system calls that are left when the process starts to read hostile bytes
// (seccomp(2)). The list is what the Go runtime, also one with cgo and the race
// detector, and the packet path need. What is missing on purpose: everything
// that takes a path (open, execve, unlink…) or makes a socket or gives one an
// address (socket, bind), ptrace, signals to others, and what shortens a
// file or punches a hole into it (ftruncate, fallocate): the agent maps the
// counter file too, and would die of SIGBUS.
//
// A system call that is not in the list returns EPERM: the runtime and the
// standard library take that for a missing feature, so that a Go release that
// tries something new does not kill the network. Calls that only an intruder
// makes kill the process, and the agent starts a clean one.

// allowed are the calls that need no look at their arguments. connects is
// StartConfig.Connects.
func allowed(connects bool) []string {
	names := []string{
		// Packets, and the control socket.
		"read", "write", "readv", "writev", "pread64", "close", "fstat",
		"recvfrom", "sendto", "recvmsg", "sendmsg", "recvmmsg", "sendmmsg",
		"accept4", "getsockname", "getpeername", "getsockopt",
		// Sockets that the agent dialled.
		"shutdown", "setsockopt", "ioctl",
		"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
		"eventfd2", "pipe2", "ppoll", "poll", "fcntl",
		"memfd_create",
		// Memory.
		"mmap", "munmap", "mremap", "madvise", "mprotect", "mincore", "brk", "membarrier",
		// Threads, and what the runtime does with its own.
		"clone", "futex", "set_robust_list", "rseq", "set_tid_address", "gettid",
		"getpid", "tgkill", "exit", "exit_group", "restart_syscall",
		"sched_yield", "sched_getaffinity", "sched_setaffinity", "prctl", "arch_prctl",
		// Signals: the runtime preempts its threads with SIGURG.
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending",
		"rt_sigtimedwait", "sigaltstack",
		// Time and chance.
		"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday",
		"timer_create", "timer_settime", "timer_delete", "setitimer", "timerfd_create", "timerfd_settime", "getrandom",
		// About itself.
		"getuid", "geteuid", "getgid", "getegid", "getrusage", "prlimit64", "uname", "sysinfo",
	}
	if connects {
		names = append(names, "connect")
	}
	return names
}

// deadly are calls that no right program makes here.
func deadly() []string {
	return []string{
		"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
		"fork", "vfork", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot",
		"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key",
		"init_module", "finit_module", "kexec_load", "setuid", "setresuid", "setgid", "setresgid",
		"setgroups", "capset", "pidfd_getfd",
	}
}

// absent are calls that must look as if the kernel had them not: the C library
// then uses clone, whose flags a filter can read.
func absent() []string { return []string{"clone3"} }

// restriction refuses a call of the list above, with EPERM, if all of one of the
// conditions hold.
type restriction struct {
	name   string
	refuse []seccomp.ArgumentConditions
}

func is(arg uint32, op seccomp.Operation, v uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: op, Value: v}
}

// noneOf holds if an argument is none of some values.
func noneOf(arg uint32, values ...uint64) []seccomp.ArgumentConditions {
	var all seccomp.ArgumentConditions
	for _, v := range values {
		all = append(all, is(arg, seccomp.NotEqual, v))
	}
	return []seccomp.ArgumentConditions{all}
}

// noneOfLevel holds for a level of setsockopt(2) if the option is none of some.
func noneOfLevel(level uint64, options ...uint64) []seccomp.ArgumentConditions {
	all := noneOf(2, options...)
	all[0] = append(all[0], is(1, seccomp.Equal, level))
	return all
}

// restrictions are those of a process; connects is StartConfig.Connects.
func restrictions(pid int, connects bool) []restriction {
	if connects {
		return always(pid)
	}
	// A socket whose connection was refused is connected to anybody by what is sent with
	// this flag (TCP Fast Open), and who may not call connect(2) has no fence either.
	fastOpen := func(flags uint32) []seccomp.ArgumentConditions {
		return []seccomp.ArgumentConditions{{is(flags, seccomp.BitsSet, unix.MSG_FASTOPEN)}}
	}
	return append(always(pid),
		restriction{"sendto", fastOpen(3)}, restriction{"sendmsg", fastOpen(2)}, restriction{"sendmmsg", fastOpen(3)})
}

// always are the restrictions that there are in any case: of none of the calls that the
// packet path makes, see filters.
func always(pid int) []restriction {
	stderr := []seccomp.ArgumentConditions{{is(0, seccomp.BitsSet, 2), is(0, seccomp.BitsNotSet, 0xfffffffd)}}
	newCode := []seccomp.ArgumentConditions{{is(2, seccomp.BitsSet, unix.PROT_EXEC)}}
	return []restriction{
		// Threads, not processes.
		{"clone", []seccomp.ArgumentConditions{{is(0, seccomp.BitsNotSet, unix.CLONE_THREAD)}}},
		// No new code.
		{"mmap", newCode},
		{"mprotect", newCode},
		// Own threads only.
		{"tgkill", noneOf(0, uint64(pid))},
		// The runtime names its memory, and workers want their timers to be exact; little
		// else of prctl(2) is harmless.
		{"prctl", noneOf(0, unix.PR_SET_VMA, unix.PR_SET_TIMERSLACK)},
		// stderr may be a socket that the agent has too (openStdio): neither change
		// its modes nor get it under another number. The kernel looks at 32 bits.
		{"fcntl", append(noneOf(1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
			unix.F_DUPFD_CLOEXEC, unix.F_ADD_SEALS, unix.F_GET_SEALS),
			seccomp.ArgumentConditions{
				is(0, seccomp.BitsSet, 2), is(0, seccomp.BitsNotSet, 0xfffffffd), is(1, seccomp.Equal, unix.F_SETFL),
			},
			seccomp.ArgumentConditions{
				is(0, seccomp.BitsSet, 2), is(0, seccomp.BitsNotSet, 0xfffffffd), is(1, seccomp.Equal, unix.F_DUPFD_CLOEXEC),
			})},
		{"getsockopt", noneOf(1, unix.SOL_SOCKET, unix.SOL_PACKET)},
		// How to close, how to notice that nobody is there any more, and how much there is to
		// read. Not stderr, see above. Of the IP headers of datagrams, what their sender has a
		// say in.
		{"shutdown", stderr},
		// Of the length of an address of IPv4 or IPv6; to which, the socket's fence says.
		{"connect", append(noneOf(2, unix.SizeofSockaddrInet4, unix.SizeofSockaddrInet6), stderr...)},
		{"setsockopt", slices.Concat(
			noneOf(1, unix.SOL_SOCKET, unix.IPPROTO_TCP, unix.IPPROTO_IP, unix.IPPROTO_IPV6),
			noneOfLevel(unix.SOL_SOCKET, unix.SO_LINGER, unix.SO_KEEPALIVE),
			noneOfLevel(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_QUICKACK),
			noneOfLevel(unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS, unix.IP_MTU_DISCOVER),
			noneOfLevel(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS, unix.IPV6_MTU_DISCOVER),
			stderr)},
		{"ioctl", noneOf(1, unix.TIOCINQ)},
		// Limits are read, and only its own.
		{"prlimit64", []seccomp.ArgumentConditions{
			{is(0, seccomp.NotEqual, 0)}, {is(2, seccomp.NotEqual, 0)},
		}},
	}
}

// filters returns what lockUp installs, in that order; connects is
// StartConfig.Connects. The kernel runs all of them on each call and the strictest
// answer counts.
//
// Each restriction is a filter of its own, since go-seccomp-bpf (1.6) does not
// load the call's number again after it looked at an argument: in one program
// with others, an argument would be taken for the next call's number. The list
// comes last: the kernel remembers which calls a filter allows without a look
// at their arguments, so that the packet path never runs any of this, unless it is to be
// kept from connecting.
func filters(pid int, connects bool) ([]seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	var all []seccomp.Policy
	for _, r := range restrictions(pid, connects) {
		group := seccomp.SyscallGroup{Action: seccomp.ActionErrno}
		for _, c := range r.refuse {
			group.NamesWithCondtions = append(group.NamesWithCondtions,
				seccomp.NameWithConditions{Name: r.name, Conditions: c})
		}
		all = append(all, seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls:      []seccomp.SyscallGroup{group},
		})
	}
	const enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
	return append(all, seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: known(info, allowed(connects))},
			{Action: seccomp.ActionKillProcess, Names: known(info, deadly())},
			{Action: enosys, Names: known(info, absent())},
		},
	}), nil
}

// known leaves out the names that this architecture has no number for.
func known(info *arch.Info, names []string) []string {
	var have []string
	for _, n := range names {
		if _, ok := info.SyscallNames[n]; ok {
			have = append(have, n)
		}
	}
	return have
}

// lockUp installs the filters on all threads, those to come included.
func lockUp(connects bool) error {
	all, err := filters(unix.Getpid(), connects)
	if err != nil {
		return err
	}
	for _, p := range all {
		// no_new_privs is set since stage 1; prctl is closed halfway through.
		f := seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: p}
		if err := seccomp.LoadFilter(f); err != nil {
			return fmt.Errorf("seccomp: %w", err)
		}
	}
	return nil
}
