// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// sysctlRoot is resolved by the kernel for the network namespace of the calling
// thread, not of the process; hence everything below runs inside Do.
const sysctlRoot = "/proc/sys/net"

// quiet is what makes the IP stack of the host ends' namespace mute: no IPv6
// (ND, MLD, router solicitations), no forwarding, no answers to echo requests,
// no ARP. See ip-sysctl in the kernel's documentation.
func quiet() []setting {
	return []setting{
		{"ipv6/conf/all/disable_ipv6", "1"},
		{"ipv6/conf/default/disable_ipv6", "1"},
		{"ipv4/ip_forward", "0"},
		{"ipv4/conf/all/arp_ignore", "8"},
		{"ipv4/icmp_echo_ignore_all", "1"},
	}
}

// setting is a file below sysctlRoot and what to write into it.
type setting struct{ name, value string }

// quietNetNS applies quiet to the calling thread's namespace. A kernel without
// IPv6, or a /proc/sys that is mounted read-only, is no error: the host ends
// have no address and no ARP anyway; this is the second lock on the door.
func quietNetNS() error {
	for _, q := range quiet() {
		if err := writeSysctl(q.name, q.value); err != nil && !sysctlRefused(err) {
			return err
		}
	}
	return nil
}

// writeSysctl writes one setting below sysctlRoot for the thread's namespace.
func writeSysctl(name, value string) error {
	f, err := os.OpenFile(filepath.Join(sysctlRoot, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}

// sysctlRefused says that a setting does not exist here or may not be written
// here, as opposed to an error that should stop the caller.
func sysctlRefused(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}
