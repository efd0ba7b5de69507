// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"sluice/test/lab"
)

// randomPlan is a topology of two to four networks, most of them of one space,
// three to six hosts, one of which is a router for what is behind it, and routes
// of all types.
//
//	h0 -- n0 --.            .-- n3 -- h3      n0 to n2 in core, n3 in edge
//	h1 -- n1 --+ core ---- edge
//	hub - n2 --'   link
//	 `- 192.168.8.0/24, fdee:8::/64 behind hub
func randomPlan(r *rand.Rand) *lab.Plan {
	core := lab.Space{Name: "core"}
	nets := 2 + r.IntN(2)
	for i := range nets {
		core.Nets = append(core.Nets, randomNet(r, i))
	}
	p := &lab.Plan{}
	for i := range 2 + r.IntN(3) {
		p.Hosts = append(p.Hosts, randomHost(fmt.Sprintf("h%d", i), core.Nets[i%nets].Name, 14+2*i))
	}
	hub := randomHost("hub", core.Nets[r.IntN(nets)].Name, 24)
	hub.Behind = []string{"192.168.8.0/24", "fdee:8::/64"}
	p.Hosts = append(p.Hosts, hub)
	core.Routes = routesOf(r, hub.Net)
	if r.IntN(2) == 0 {
		core.Rules = []string{
			"from 10.80.0.112/29 to 192.168.8.128/25 prohibit pref 1000",
			"to 192.168.8.64/26 unreachable pref 1001",
		}
	}
	edge := lab.Space{Name: "edge", Nets: []lab.Net{randomNet(r, 3)}}
	mtu := []int{1500, 1400}[r.IntN(2)]
	core.Links = []lab.Link{{Name: "to-edge", Peer: "edge", PeerLink: "to-core", Addrs: []string{"10.255.0.0/31", "fdff::1/64"}, MTU: mtu}}
	edge.Links = []lab.Link{{Name: "to-core", Peer: "core", PeerLink: "to-edge", Addrs: []string{"10.255.0.1/31", "fdff::2/64"}, MTU: mtu}}
	core.Routes = append(core.Routes, "10.83.0.0/24 via 10.255.0.1", "fd83::/64 via fdff::2")
	edge.Routes = []string{"default via 10.255.0.0", "default via fdff::1"}
	p.Hosts = append(p.Hosts, randomHost("far", "n3", 26))
	p.Spaces = []lab.Space{core, edge}
	return p
}

func randomNet(r *rand.Rand, i int) lab.Net {
	return lab.Net{
		Name: fmt.Sprintf("n%d", i), MTU: []int{1500, 1500, 1400, 1280, 4000}[r.IntN(5)],
		Subnets: []string{fmt.Sprintf("10.8%d.0.0/24", i), fmt.Sprintf("fd8%d::/64", i)},
	}
}

// randomHost has many addresses, since the kernel limits how many errors it sends
// to each.
func randomHost(name, net string, number int) lab.Host {
	h := lab.Host{Name: name, Net: net, Number: number}
	for i := range addresses - 1 {
		h.More = append(h.More, number*8+i)
	}
	return h
}

// addresses that a host has of each family.
const addresses = 12

// routesOf are routes of every type; what is via the hub is answered there. No MTU
// is above that of the network: Linux would believe it, and lose what is between.
func routesOf(r *rand.Rand, net string) []string {
	n := int(net[1] - '0')
	via4, via6 := fmt.Sprintf("10.8%d.0.24", n), fmt.Sprintf("fd8%d::18", n)
	nobody4 := fmt.Sprintf("10.8%d.0.250", n)
	all := []string{
		"192.168.8.0/24 via " + via4, "fdee:8::/64 via " + via6,
		"blackhole 192.168.9.0/26", "blackhole fdee:9::/64",
		"unreachable 192.168.9.64/26", "unreachable fdee:a::/64",
		"prohibit 192.168.9.128/26", "prohibit fdee:b::/64",
		"192.168.10.0/24 via " + nobody4,
		fmt.Sprintf("192.168.8.32/28 via %s mtu %d", via4, 1000+4*r.IntN(70)),
		fmt.Sprintf("fdee:8::8000/113 via %s mtu 1280", via6),
		"throw 192.168.9.192/26",
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	// Gateways are reached by the connected routes; order is free.
	return slices.Clip(all)
}
