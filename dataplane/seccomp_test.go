// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge answers what the kernel would: the strictest of all filters (seccomp(2)).
type judge struct {
	info *arch.Info
	vms  []*bpf.VM
}

// testPID is the process's own number in these tests.
const testPID = 1

func newJudge(t *testing.T, connects bool) *judge {
	t.Helper()
	policies, err := filters(testPID, connects)
	if err != nil {
		t.Fatal(err)
	}
	j := new(judge)
	if j.info, err = arch.GetInfo(""); err != nil {
		t.Fatal(err)
	}
	for _, p := range policies {
		insts, err := p.Assemble()
		if err != nil {
			t.Fatal(err)
		}
		vm, err := bpf.NewVM(insts)
		if err != nil {
			t.Fatal(err)
		}
		j.vms = append(j.vms, vm)
	}
	return j
}

// on returns the answer to a call: struct seccomp_data in the words that the
// filter loads, which the VM takes for big endian.
func (j *judge) on(t *testing.T, audit uint32, nr uint64, args [6]uint64) seccomp.Action {
	t.Helper()
	d := make([]byte, 64)
	binary.BigEndian.PutUint32(d[0:], uint32(nr))
	binary.BigEndian.PutUint32(d[4:], audit)
	for i, a := range args {
		binary.BigEndian.PutUint32(d[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(d[20+8*i:], uint32(a>>32))
	}
	strictest := seccomp.ActionAllow
	for _, vm := range j.vms {
		r, err := vm.Run(d)
		if err != nil {
			t.Fatal(err)
		}
		// As signed numbers, a lower one is stricter (KILL_PROCESS is negative).
		if a := seccomp.Action(r); int32(a) < int32(strictest) {
			strictest = a
		}
	}
	return strictest
}

func (j *judge) call(t *testing.T, name string, args ...uint64) seccomp.Action {
	t.Helper()
	nr, ok := j.info.SyscallNames[name]
	if !ok {
		t.Skipf("no %s here", name)
	}
	var six [6]uint64
	copy(six[:], args)
	return j.on(t, uint32(j.info.ID), uint64(nr), six)
}

const (
	allow  = seccomp.ActionAllow
	kill9  = seccomp.ActionKillProcess
	eperm  = seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
)

func TestFilter(t *testing.T) {
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	j := newJudge(t, true)
	for _, tc := range []struct {
		what string
		call string
		args []uint64
		want seccomp.Action
	}{
		{"receive", "recvmmsg", nil, allow},
		{"send", "sendmmsg", nil, allow},
		{"wait", "epoll_pwait", nil, allow},
		{"sleep", "futex", nil, allow},
		{"open", "openat", nil, eperm},
		{"old open", "open", nil, eperm},
		{"socket", "socket", nil, eperm},
		{"connect", "connect", []uint64{9, 0, unix.SizeofSockaddrInet4}, allow},
		{"connect by IPv6", "connect", []uint64{9, 0, unix.SizeofSockaddrInet6}, allow},
		{"connect to a path", "connect", []uint64{9, 0, unix.SizeofSockaddrUnix}, eperm},
		{"connect stderr", "connect", []uint64{2, 0, unix.SizeofSockaddrInet4}, eperm},
		{"bind", "bind", nil, eperm},
		{"setsockopt", "setsockopt", nil, eperm},
		{"ioctl", "ioctl", nil, eperm},
		{"kill", "kill", nil, eperm},
		{"shorten the counters", "ftruncate", []uint64{fdCounters, 0}, eperm},
		{"shorten anything", "truncate", nil, eperm},
		{"a hole in the counters", "fallocate", []uint64{fdCounters, 3}, eperm},
		{"move in a file", "lseek", nil, eperm},
		{"execve", "execve", nil, kill9},
		{"execveat", "execveat", nil, kill9},
		{"ptrace", "ptrace", nil, kill9},
		{"io_uring", "io_uring_setup", nil, kill9},
		{"thread", "clone", []uint64{thread}, allow},
		{"process", "clone", []uint64{uint64(unix.SIGCHLD)}, eperm},
		{"namespace", "clone", []uint64{unix.CLONE_NEWUSER}, eperm},
		{"clone3", "clone3", nil, enosys},
		{"memory", "mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
		{"code", "mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, eperm},
		{"guard page", "mprotect", []uint64{0, 4096, unix.PROT_NONE}, allow},
		{"make it code", "mprotect", []uint64{0, 4096, unix.PROT_EXEC}, eperm},
		{"own thread", "tgkill", []uint64{testPID, 7, uint64(unix.SIGURG)}, allow},
		{"other's thread", "tgkill", []uint64{testPID + 1, 7, uint64(unix.SIGURG)}, eperm},
		{"name memory", "prctl", []uint64{unix.PR_SET_VMA}, allow},
		{"exact timers", "prctl", []uint64{unix.PR_SET_TIMERSLACK, 1}, allow},
		{"be dumpable", "prctl", []uint64{unix.PR_SET_DUMPABLE, 1}, eperm},
		{"flags", "fcntl", []uint64{3, unix.F_GETFL}, allow},
		{"mode of a socket", "fcntl", []uint64{6, unix.F_SETFL}, allow},
		{"mode of stderr", "fcntl", []uint64{2, unix.F_SETFL}, eperm},
		{"mode of stderr, with a high half", "fcntl", []uint64{1<<32 | 2, unix.F_SETFL}, eperm},
		{"end of a stderr that is a socket", "shutdown", []uint64{2, unix.SHUT_RDWR}, eperm},
		{"end of an outer connection", "shutdown", []uint64{9, unix.SHUT_WR}, allow},
		{"its reset", "setsockopt", []uint64{9, unix.SOL_SOCKET, unix.SO_LINGER}, allow},
		{"linger of stderr", "setsockopt", []uint64{2, unix.SOL_SOCKET, unix.SO_LINGER}, eperm},
		{"a mark", "setsockopt", []uint64{9, unix.SOL_SOCKET, unix.SO_MARK}, eperm},
		{"option of TCP", "setsockopt", []uint64{9, unix.SOL_TCP, unix.TCP_REPAIR}, eperm},
		{"its keepalive", "setsockopt", []uint64{9, unix.SOL_SOCKET, unix.SO_KEEPALIVE}, allow},
		{"how long it is idle", "setsockopt", []uint64{9, unix.SOL_TCP, unix.TCP_KEEPIDLE}, allow},
		{"keepalive of stderr", "setsockopt", []uint64{2, unix.SOL_SOCKET, unix.SO_KEEPALIVE}, eperm},
		{"a hop limit", "setsockopt", []uint64{9, unix.IPPROTO_IP, unix.IP_TTL}, allow},
		{"a traffic class", "setsockopt", []uint64{9, unix.IPPROTO_IPV6, unix.IPV6_TCLASS}, allow},
		{"a hop limit of stderr", "setsockopt", []uint64{2, unix.IPPROTO_IP, unix.IP_TTL}, eperm},
		{"a header of its own", "setsockopt", []uint64{9, unix.IPPROTO_IP, unix.IP_HDRINCL}, eperm},
		{"another's address", "setsockopt", []uint64{9, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT}, eperm},
		{"option of IPv4 at IPv6", "setsockopt", []uint64{9, unix.IPPROTO_IPV6, unix.IP_TTL}, eperm},
		{"linger of IP", "setsockopt", []uint64{9, unix.IPPROTO_IP, unix.SO_LINGER}, eperm},
		{"what there is to read", "ioctl", []uint64{9, unix.TIOCINQ}, allow},
		{"type into a terminal", "ioctl", []uint64{2, unix.TIOCSTI}, eperm},
		{"another stderr", "fcntl", []uint64{2, unix.F_DUPFD_CLOEXEC}, eperm},
		{"another socket", "fcntl", []uint64{3, unix.F_DUPFD_CLOEXEC}, allow},
		{"seals", "fcntl", []uint64{3, unix.F_ADD_SEALS}, allow},
		{"signal owner", "fcntl", []uint64{3, unix.F_SETOWN}, eperm},
		{"packet drops", "getsockopt", []uint64{3, unix.SOL_PACKET, unix.PACKET_STATISTICS}, allow},
		{"peer", "getsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_PEERCRED}, allow},
		{"iptables", "getsockopt", []uint64{3, unix.SOL_IP, 64}, eperm},
		{"own limits", "prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 0, 1}, allow},
		{"other limits", "prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 1, 0}, eperm},
		{"other's limits", "prlimit64", []uint64{2, unix.RLIMIT_NOFILE, 0, 1}, eperm},
		{"argument with a high half", "tgkill", []uint64{1<<32 | testPID}, eperm},
	} {
		t.Run(tc.what, func(t *testing.T) {
			if got := j.call(t, tc.call, tc.args...); got != tc.want {
				t.Errorf("%s%v: %#x, want %#x", tc.call, tc.args, uint32(got), uint32(tc.want))
			}
		})
	}
}

// TestFilterOfConnect: who is not to connect sockets does not.
func TestFilterOfConnect(t *testing.T) {
	j := newJudge(t, false)
	if got := j.call(t, "connect", 9, 0, unix.SizeofSockaddrInet4); got != eperm {
		t.Errorf("%#x", uint32(got))
	}
	for name, at := range map[string]int{"sendto": 3, "sendmsg": 2, "sendmmsg": 3} {
		args := make([]uint64, 6)
		for flags, want := range map[uint64]seccomp.Action{
			0: allow, unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL: allow, unix.MSG_FASTOPEN: eperm,
			1<<32 | unix.MSG_FASTOPEN | unix.MSG_DONTWAIT: eperm,
		} {
			args[at] = flags
			if got := j.call(t, name, args...); got != want {
				t.Errorf("%s with flags %#x: %#x, want %#x", name, flags, uint32(got), uint32(want))
			}
		}
	}
}

// TestFilterOfSending: whose sockets have a fence may send without a look at what.
func TestFilterOfSending(t *testing.T) {
	for _, r := range restrictions(testPID, true) {
		if strings.HasPrefix(r.name, "send") || strings.HasPrefix(r.name, "recv") {
			t.Errorf("%s is looked at", r.name)
		}
	}
}

// TestFilterOfOtherABIs: the same numbers mean other calls there.
func TestFilterOfOtherABIs(t *testing.T) {
	j := newJudge(t, true)
	if j.info.ID != arch.X86_64.ID {
		t.Skip("amd64 has the other ABIs that are tested")
	}
	read := uint64(j.info.SyscallNames["read"])
	if got := j.on(t, uint32(arch.I386.ID), read, [6]uint64{}); got == allow {
		t.Error("i386 call allowed")
	}
	if got := j.on(t, uint32(j.info.ID), read|1<<30, [6]uint64{}); got == allow {
		t.Error("x32 call allowed")
	}
}

// TestNoArgumentIsTakenForACall tries, as each argument of each call that is
// refused by its arguments, the numbers of calls that are allowed: a filter that
// forgets to load the call's number again would let it through.
func TestNoArgumentIsTakenForACall(t *testing.T) {
	j := newJudge(t, true)
	refusals := map[string]func(v uint64) [6]uint64{
		"clone":  func(v uint64) [6]uint64 { return [6]uint64{v &^ unix.CLONE_THREAD} },
		"mmap":   func(v uint64) [6]uint64 { return [6]uint64{v, v, v | unix.PROT_EXEC} },
		"tgkill": func(v uint64) [6]uint64 { return [6]uint64{v + testPID + 1} },
		"prctl": func(v uint64) [6]uint64 {
			if v == unix.PR_SET_TIMERSLACK { // is allowed, see TestFilter
				v = unix.PR_GET_TIMERSLACK
			}
			return [6]uint64{v}
		},
		"fcntl":      func(v uint64) [6]uint64 { return [6]uint64{v, v + 2000} },
		"getsockopt": func(v uint64) [6]uint64 { return [6]uint64{v, v + 2000, v} },
	}
	for name, args := range refusals {
		nr := uint64(j.info.SyscallNames[name])
		for v := range uint64(512) {
			if got := j.on(t, uint32(j.info.ID), nr, args(v)); got == allow {
				t.Errorf("%s%v is allowed", name, args(v))
			}
		}
	}
}

func TestListsAreDisjoint(t *testing.T) {
	all := slices.Concat(allowed(true), deadly(), absent())
	slices.Sort(all)
	if n := len(all); len(slices.Compact(all)) != n {
		t.Error("a call is in two lists")
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range restrictions(testPID, false) {
		if _, known := info.SyscallNames[r.name]; !known || !slices.Contains(allowed(true), r.name) {
			t.Errorf("%s is restricted and not allowed", r.name)
		}
	}
}
