// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sysctlRoot is resolved by the kernel for the calling thread's network namespace.
const sysctlRoot = "/proc/sys/net"

// The sysctls of forwarding. Both are of the whole host: of IPv4 the input interface
// decides, and what comes back comes in by another one than the uplink's; of IPv6 there
// is only this one (ip6_forward).
const (
	forward4 = "ipv4/ip_forward"
	forward6 = "ipv6/conf/all/forwarding"
)

// forward switches on what is off.
func forward(nl *netlink.Handle, c *Config) error {
	for _, end := range c.Ends {
		name := forward4
		if end.Is6() {
			name = forward6
		}
		if isOn(name) {
			continue
		}
		if ifname := listens(nl); end.Is6() && ifname != "" {
			return wouldForget(ifname)
		}
		if err := writeSysctl(name, "1"); err != nil {
			return err
		}
	}
	return nil
}

// wouldForget refuses to make a router of a host that has its own default route from a
// router's advertisements: the kernel would forget it (accept_ra of 1, ip-sysctl).
func wouldForget(ifname string) error {
	return fmt.Errorf("%w: IPv6 forwarding would make %s forget its default route, which it has from router advertisements; "+
		"set net.ipv6.conf.%s.accept_ra=2 first", ErrConflict, ifname, ifname)
}

// listens is the interface that has a default route from a router's advertisements, and
// would forget it; empty if there is none.
func listens(nl *netlink.Handle) string {
	all, err := nl.RouteList(nil, netlink.FAMILY_V6)
	if err != nil {
		return ""
	}
	for _, r := range all {
		if r.Protocol != unix.RTPROT_RA && r.Protocol != unix.RTPROT_KERNEL || prefixOf(r.Dst).Bits() > 0 {
			continue
		}
		link, err := nl.LinkByIndex(r.LinkIndex)
		if err != nil {
			continue
		}
		if readSysctl("ipv6/conf/"+link.Attrs().Name+"/accept_ra") == "1" {
			return link.Attrs().Name
		}
	}
	return ""
}

// Forwards tells whether the host forwards packets of the families.
func (h *Host) Forwards() (v4, v6 bool, err error) {
	err = h.within(func(*netlink.Handle) error {
		v4, v6 = isOn(forward4), isOn(forward6)
		return nil
	})
	return v4, v6, err
}

func isOn(name string) bool { return readSysctl(name) == "1" }

// readSysctl is empty for what can't be read.
func readSysctl(name string) string {
	text, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func writeSysctl(name, value string) error {
	f, err := os.OpenFile(filepath.Join(sysctlRoot, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("sysctl: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}

// refused says that a setting is not there, or may not be written here.
func refused(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}
