// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/veth"
)

// nsIdentity tells a network namespace from every other one, before and after.
// A path does not: `ip netns del red; ip netns add red` gives another namespace
// of the same name, often with the same inode, which the kernel uses again.
// Comparable.
type nsIdentity struct {
	// Boot is the boot that the rest is good for (random(4), boot_id).
	Boot string `json:"boot"`
	// Cookie is the kernel's 64-bit number of the namespace, which it never uses
	// twice in one boot (SO_NETNS_COOKIE, socket(7)).
	Cookie uint64 `json:"cookie"`
}

// identify asks the kernel who a namespace is.
func identify(ns netns.NsHandle) (nsIdentity, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nsIdentity{}, fmt.Errorf("identity of the boot: %w", err)
	}
	id := nsIdentity{Boot: strings.TrimSpace(string(boot))}
	err = veth.Do(ns, func() error {
		id.Cookie, err = netnsCookie()
		return err
	})
	if err != nil {
		return nsIdentity{}, fmt.Errorf("identity of the network namespace: %w", err)
	}
	return id, nil
}

// ownNetNS identifies the namespace that this process runs in.
func ownNetNS() (nsIdentity, error) {
	ns, err := veth.OpenNetNS("/proc/self/ns/net")
	if err != nil {
		return nsIdentity{}, err
	}
	defer ns.Close()
	return identify(ns)
}

// netnsCookie returns the cookie of the thread's namespace.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// sameNamespace opens what is now at a recorded place and says whether it is the
// namespace that was recorded. The caller closes the handle, which is only valid
// if same. Gone or replaced is not an error.
func sameNamespace(place string, was nsIdentity) (ns netns.NsHandle, same bool, err error) {
	ns, err = veth.OpenNetNS(place)
	if errors.Is(err, veth.ErrNoNetNS) || errors.Is(err, veth.ErrNotNetNS) {
		return netns.None(), false, nil
	}
	if err != nil {
		return netns.None(), false, err
	}
	is, err := identify(ns)
	if err != nil || is != was {
		ns.Close()
		return netns.None(), false, err
	}
	return ns, true, nil
}

// netnsPlace is the one spelling of a namespace's place that is recorded and
// compared: an absolute path, or pid:N.
func netnsPlace(s string) string {
	switch {
	case strings.HasPrefix(s, "pid:"):
		return s
	case filepath.IsAbs(s):
		return filepath.Clean(s)
	default:
		return filepath.Join("/run/netns", s)
	}
}
