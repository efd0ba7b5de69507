// SPDX-License-Identifier: Apache-2.0

package router

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	kt "sluice/test/kerneltest"
)

// kernel is the oracle: a network namespace that routes, and another one that has
// the far ends of its devices. What is sent into a far end has come out of one of
// them, or not at all, when the call returns.
type kernel struct {
	t    *testing.T
	devs []Device
	ends []*kt.End
}

func newKernel(t *testing.T, devs []Device) *kernel {
	t.Helper()
	far := kt.NewNS(t)
	kt.Enter(t)
	kt.Forward(t)
	kt.Sysctl(t, "ipv6/conf/default/addr_gen_mode=1", "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0")
	kt.IP(t, "link set lo up")
	k := &kernel{t: t, devs: devs}
	for i := range devs {
		d := &devs[i]
		// The far end's link-layer address is told nobody but the test.
		kt.IP(t, fmt.Sprintf("link add %s index %d mtu 9000 address %v type veth peer name %sx mtu 9000", d.Name, d.Index, d.MAC, d.Name))
		k.ends = append(k.ends, kt.OpenIn(t, far, d.Name+"x"))
	}
	for i := range devs {
		k.address(&devs[i])
	}
	return k
}

// try gives one line to ip(8), which may refuse it.
func (k *kernel) try(line string) bool {
	return exec.Command("ip", strings.Fields(line)...).Run() == nil
}

// address gives a device its MTU and its addresses.
func (k *kernel) address(d *Device) {
	k.t.Helper()
	lines := []string{fmt.Sprintf("link set %s mtu %d up", d.Name, d.MTU)}
	for _, p := range d.Addrs {
		nodad := ""
		if p.Addr().Is6() {
			nodad = " nodad"
		}
		lines = append(lines, fmt.Sprintf("addr add %v dev %s%s", p, d.Name, nodad))
	}
	kt.IP(k.t, lines...)
	if d.NoRedirects {
		kt.Sysctl(k.t, "ipv4/conf/all/send_redirects=0")
		kt.Sysctl(k.t, "ipv4/conf/"+d.Name+"/send_redirects=0")
	}
	if d.NoForward {
		kt.Sysctl(k.t, "ipv4/conf/"+d.Name+"/forwarding=0")
		kt.Sysctl(k.t, "ipv6/conf/"+d.Name+"/forwarding=0")
	}
	kt.Sysctl(k.t, fmt.Sprintf("ipv4/conf/%s/rp_filter=%d", d.Name, d.ReversePath))
}

// routes are all routes of both families as ip(8) shows them.
func (k *kernel) routes() (all []string) {
	k.t.Helper()
	for _, family := range []string{"-4", "-6"} {
		for l := range strings.Lines(kt.Run(k.t, "ip", family, "route", "show", "table", "all")) {
			all = append(all, strings.TrimRight(l, " \n"))
		}
	}
	return all
}

// send sends a frame into a far end; false if it is too long for it.
func (k *kernel) send(end int, frame []byte) bool {
	k.t.Helper()
	_, err := unix.Write(k.ends[end].FD, frame)
	if err != nil && !errors.Is(err, unix.EMSGSIZE) {
		k.t.Fatal(err)
	}
	return err == nil
}
