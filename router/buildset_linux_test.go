// SPDX-License-Identifier: Apache-2.0

package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	"sluice/routing"
)

// randomDevices are devices with addresses that have subnets in common.
func randomDevices(r *rand.Rand) []Device {
	var devs []Device
	for n := range 3 {
		d := Device{Name: fmt.Sprintf("slt-r%d", n), Index: uint16(10 + n), MAC: packet.MAC{2, 0, 0, 0, 1, byte(n)}, MTU: 1500, NoForward: r.IntN(4) == 0}
		for range r.IntN(5) {
			a := netip.AddrFrom4([4]byte{byte(10 + r.IntN(2)), byte(r.IntN(2)), byte(r.IntN(2)), byte(1 + r.IntN(250))})
			d.add(netip.PrefixFrom(a, []int{8, 16, 24, 24, 25, 30, 31, 32}[r.IntN(8)]))
		}
		for range r.IntN(4) {
			a := netip.AddrFrom16([16]byte{0xfd, 0x64, 14: byte(r.IntN(2)), 15: byte(r.IntN(250))})
			d.add(netip.PrefixFrom(a, []int{48, 64, 64, 64, 126, 127, 128}[r.IntN(7)]))
		}
		if r.IntN(3) > 0 {
			d.add(netip.MustParsePrefix(fmt.Sprintf("fe80::%d/64", n+1)))
		}
		devs = append(devs, d)
	}
	return devs
}

// add adds an address that the device doesn't have yet.
func (d *Device) add(p netip.Prefix) {
	if !slices.ContainsFunc(d.Addrs, func(o netip.Prefix) bool { return o.Addr() == p.Addr() }) && !p.Addr().IsUnspecified() {
		d.Addrs = append(d.Addrs, p)
	}
}

// shown are all routes as ip(8) would show them, sorted.
func shown(s *routing.Set) (all []string) {
	for r := range s.Routes(0) {
		all = append(all, r.String())
	}
	slices.Sort(all)
	return all
}

// settled is the difference to the kernel's routes when it has noticed that its
// devices are up, which it does in its own time.
func settled(k *kernel, ours []string) (diff string) {
	for range 100 {
		theirs := k.routes()
		slices.Sort(theirs)
		if diff = cmp.Diff(theirs, ours); diff == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return diff
}

// Addresses bring the routes that they bring in Linux, in all tables.
func TestAddressesBringTheKernelsRoutes(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			devs := randomDevices(rand.New(rand.NewPCG(seed, 3)))
			k := newKernel(t, devs)
			set, err := BuildSet(&Spec{Devices: devs})
			if err != nil {
				t.Fatal(err)
			}
			if diff := settled(k, shown(set)); diff != "" {
				for _, d := range devs {
					t.Log(d.Name, d.Addrs, d.NoForward)
				}
				t.Errorf("routes (-kernel +ours):\n%s", diff)
			}
		})
	}
}
