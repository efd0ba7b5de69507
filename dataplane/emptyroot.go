// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The empty root
//
// The dataplane's root directory is an empty read-only tmpfs, alone in its mount
// namespace. It can't be made before the program is loaded: a dynamically linked
// one (race detector, cgo) needs its loader and libraries by path. Nor can the
// program make it afterwards: that needs a capability, which every thread of the
// Go runtime would then have had for a moment. So the agent does it from
// outside, when the program says that it is loaded: a thread of the agent enters
// the process's mount namespace and calls pivot_root(2), which moves every
// process there whose root was the old one.

// emptyRoot gives the process of pidfd an empty root directory.
func emptyRoot(pidfd int) error {
	err := onLostThread(func() error {
		// setns(2) refuses a mount namespace to a thread that shares its root
		// and working directory with others.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return pivot()
	})
	if err != nil {
		return fmt.Errorf("empty root directory: %w", err)
	}
	return nil
}

// pivot replaces the root of the calling thread's mount namespace. /proc is the
// one directory that is certain to exist; what was there goes with all the rest.
func pivot() error {
	const (
		dir   = "/proc"
		flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	)
	// Nothing of what follows may propagate to the namespace that this one was
	// copied from (mount_namespaces(7)).
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount private", err)
	}
	if err := unix.Mount("sluice", dir, "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555"); err != nil {
		return os.NewSyscallError("mount tmpfs", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	// With both names the same, the old root ends up on top of the new one, and
	// "." is still the old one (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	return os.NewSyscallError("umount", unix.Unmount(".", unix.MNT_DETACH))
}

// onLostThread runs f on a thread that dies with it, since f leaves it in a
// state that no other goroutine may meet.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return // locked: the runtime ends the thread
		}
		// The process's first thread can't be ended, and /proc/self tells its
		// namespaces as the process's. Hold it while another one is lost.
		done <- onLostThread(f)
		runtime.UnlockOSThread()
	}()
	return <-done
}

// checkRoot reports an error unless the calling process sees an empty read-only
// root directory, and nothing of another.
func checkRoot() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	if st.Flags&unix.ST_RDONLY == 0 || len(entries) != 0 {
		return fmt.Errorf("root directory is not empty and read-only: %d entries", len(entries))
	}
	if dir, err := os.Getwd(); err != nil || dir != "/" {
		return fmt.Errorf("working directory %q is not the root", dir)
	}
	return nil
}
