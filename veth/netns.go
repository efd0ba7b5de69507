// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) keeps its named namespaces.
const netnsDir = "/run/netns"

var (
	// ErrNoNetNS says that a name, path or process has no network namespace.
	ErrNoNetNS = errors.New("no such network namespace")
	// ErrNotNetNS says that a path exists and is something else.
	ErrNotNetNS = errors.New("not a network namespace")

	// errExited is what Do returns for a function that ended its goroutine.
	errExited = errors.New("the function ended its goroutine")
)

// OpenNetNS opens a network namespace by what a user calls it: a name of
// ip-netns(8), an absolute path, or "pid:N" for the namespace of a process.
// The caller closes the handle. Errors: ErrNoNetNS, ErrNotNetNS.
func OpenNetNS(nameOrPath string) (netns.NsHandle, error) {
	path, err := netnsPath(nameOrPath)
	if err != nil {
		return netns.None(), err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOTDIR) {
		return netns.None(), fmt.Errorf("%w: %s", ErrNoNetNS, nameOrPath)
	}
	if err != nil {
		return netns.None(), fmt.Errorf("open network namespace %s: %w", nameOrPath, err)
	}
	if !isNetNS(fd) {
		unix.Close(fd)
		return netns.None(), fmt.Errorf("%w: %s", ErrNotNetNS, nameOrPath)
	}
	return netns.NsHandle(fd), nil
}

// netnsPath turns what OpenNetNS accepts into a path.
func netnsPath(s string) (string, error) {
	pid, isPID := strings.CutPrefix(s, "pid:")
	switch {
	case isPID:
		n, err := strconv.ParseUint(pid, 10, 31)
		if err != nil || n == 0 {
			return "", fmt.Errorf("%w: %q is not a process number", ErrNoNetNS, pid)
		}
		return fmt.Sprintf("/proc/%d/ns/net", n), nil
	case filepath.IsAbs(s):
		return s, nil
	case s == "" || s == "." || s == ".." || strings.ContainsRune(s, '/'):
		return "", fmt.Errorf("%w: %q is neither a name nor an absolute path", ErrNoNetNS, s)
	}
	return filepath.Join(netnsDir, s), nil
}

// isNetNS asks the kernel what kind of namespace an fd is, see ioctl_nsfs(2).
func isNetNS(fd int) bool {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	return err == nil && kind == unix.CLONE_NEWNET
}

// Do runs fn on a thread that is in namespace ns, and waits for it.
//
// fn runs on a goroutine of its own, so that the caller's thread, locked or
// not, never changes its namespace. If the thread can't be brought back it stays
// locked to that goroutine and the runtime ends it with the goroutine: no other
// code can ever run on a thread in the wrong namespace. Goroutines that fn
// starts are not in ns.
func Do(ns netns.NsHandle, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errExited
		defer func() { done <- err }()
		err = inNetNS(ns, fn)
	}()
	return <-done
}

// inNetNS is Do's goroutine.
func inNetNS(ns netns.NsHandle, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own network namespace: %w", err)
	}
	defer home.Close()
	// Into its own a thread may not go if it belongs to another user namespace, and need
	// not.
	if isSameNS(int(home.Fd()), int(ns)) {
		defer runtime.UnlockOSThread()
		return fn()
	}
	if err := unix.Setns(int(ns), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	// A deferred call, so that the thread is also brought back when fn ends its
	// goroutine. Not unlocking is what ends a thread that can't be brought back.
	defer func() {
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// isSameNS reports whether two descriptors are of one namespace (ioctl_ns(2)).
func isSameNS(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}

// CreateNetNS makes a network namespace that lives without a process, bind-mounted
// at path as ip-netns(8) does, and opens it. A namespace that is already there is
// opened and configured again, so the call can be repeated after a kill at any
// point. The caller closes the handle.
//
// It is made for host ends: loopback stays down, IPv6 is off, nothing is
// forwarded. A path that is not absolute is refused: OpenNetNS would take it for
// something else.
func CreateNetNS(path string) (netns.NsHandle, error) {
	if err := needAbsolute(path); err != nil {
		return netns.None(), err
	}
	if ns, err := OpenNetNS(path); err == nil {
		return ns, Do(ns, quietNetNS)
	} else if !errors.Is(err, ErrNoNetNS) && !errors.Is(err, ErrNotNetNS) {
		return netns.None(), err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return netns.None(), fmt.Errorf("network namespace %s: %w", path, err)
	}
	// An empty file is what a creator that was killed before its mount leaves
	// behind; it serves as well as a new one. Anything else isn't ours.
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return netns.None(), fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer f.Close()
	if err := mountOnce(path, f); err != nil {
		return netns.None(), err
	}
	return OpenNetNS(path)
}

// mountOnce mounts a new namespace over the file f at path, unless another
// process was faster. The lock is on the file below the mount and goes with f.
func mountOnce(path string, f *os.File) error {
	if isNetNS(int(f.Fd())) {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != 0 {
		return fmt.Errorf("%w: %s", ErrNotNetNS, path)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if ns, err := OpenNetNS(path); err == nil {
		return ns.Close()
	}
	done := make(chan error, 1)
	go func() { done <- mountNewNetNS(path) }()
	return <-done
}

// mountNewNetNS leaves its thread locked: the thread belongs to the new
// namespace and ends with the goroutine. The mount comes last, so that a
// namespace that can be found is a configured one, and one that is not mounted
// goes away with the thread.
func mountNewNetNS(path string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	if err := quietNetNS(); err != nil {
		return err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount network namespace at %s: %w", path, err)
	}
	return nil
}

// DeleteNetNS unmounts and removes what CreateNetNS made. The namespace itself
// ends with its last user. Nothing there is not an error; a path that is not
// absolute is.
func DeleteNetNS(path string) error {
	if err := needAbsolute(path); err != nil {
		return err
	}
	for {
		ns, err := OpenNetNS(path)
		if err != nil {
			break
		}
		ns.Close()
		// A path outside CreateNetNS could be a namespace without being a mount.
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return nil
}

// needAbsolute refuses a path that depends on where the caller is.
func needAbsolute(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %q is not an absolute path", ErrNotNetNS, path)
	}
	return nil
}
