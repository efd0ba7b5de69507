// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wrapEnv has the program that a test's own is to become.
const wrapEnv = "SLT_STEPS"

// Wrap makes a command line and an environment one that is watched. self is a program
// whose main calls Main first.
func Wrap(self string, args, env []string) (wrapped, wrappedEnv []string) {
	return append([]string{self}, args[1:]...), append(env, wrapEnv+"="+args[0])
}

// Main returns if this process is not one that Wrap has asked for. If it is, its first
// line on stdout is for Watch, and it becomes the other program.
func Main() {
	program := os.Getenv(wrapEnv)
	if program == "" {
		return
	}
	runtime.LockOSThread()
	fd, err := listen()
	if err == nil {
		// By a call that is not watched, since nobody watches yet.
		_, err = unix.Writev(1, [][]byte{fmt.Appendf(nil, "%d\n", fd)})
	}
	if err == nil {
		err = unix.Exec(program, append([]string{program}, os.Args[1:]...), without(os.Environ()))
	}
	fmt.Fprintln(os.Stderr, "steps:", err)
	os.Exit(1)
}

// without is the environment without what Wrap has added.
func without(env []string) (out []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, wrapEnv+"=") {
			out = append(out, e)
		}
	}
	return out
}

// watched are the calls. What is only read or waited for is no step.
// and sendto(2) of an unconnected socket can't be told apart, netlink uses the latter.
func watched() []uint32 {
	return []uint32{
		unix.SYS_CONNECT, unix.SYS_WRITE, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_PWRITE64, unix.SYS_FDATASYNC, unix.SYS_FSYNC,
		unix.SYS_FTRUNCATE, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT,
		unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_BIND, unix.SYS_LISTEN,
	}
}

// listen has this thread, and what it becomes, tell of the calls by a descriptor.
func listen() (fd int, err error) {
	const load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	const equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	calls := watched()
	prog := []unix.SockFilter{{Code: load, K: 0}} // seccomp_data.nr
	for i, nr := range calls {
		prog = append(prog, unix.SockFilter{Code: equal, K: nr, Jt: uint8(len(calls) - i)})
	}
	prog = append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	// The descriptor must outlive the exec, since the other end takes it then.
	_, err = unix.FcntlInt(r, unix.F_SETFD, 0)
	return int(r), err
}
