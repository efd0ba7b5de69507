// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"time"

	"sluice/test/lab"
)

// outsideYAML is a network whose way out is by sockets.
const outsideYAML = `namespaces: [{name: shop}]
networks: [{name: web, namespace: shop, subnets: [10.44.0.0/24, "fd44::/64"]}]
uplinks: [{name: out, type: socket}]
`

// rival is another program that brings a container out by sockets of its host.
type rival struct {
	name string
	args func(ns string) []string
}

// Name implements lab.Fabric.
func (r *rival) Name() string { return r.name }

// Connect implements lab.Fabric; the program is started by outside.
func (*rival) Connect(*lab.NS) {}

func rivals() []*rival {
	return []*rival{
		{"slirp4netns", func(ns string) []string {
			return []string{"slirp4netns", "--netns-type=path", "--configure", "--mtu=65520", ns, "tap0"}
		}},
		{"pasta", func(ns string) []string {
			return []string{
				"pasta", "--config-net", "--no-map-gw", "--runas", "0", "-4", "-f",
				"-t", "none", "-u", "none", "-T", "none", "-U", "none", "--netns", ns,
			}
		}},
	}
}

// outside is a container of each program, and the servers in a world behind the host
// that all of them run on.
//
//	red-out   ---- Sluice ------.
//	red-slirp4netns -- slirp4netns -- host ---- world
//	red-pasta ---- pasta -------'
func (b *bench) outside(l *lab.Lab) pair {
	host, world := l.NS("host"), l.NS("world")
	l.Cable(host, world, "wan", 1500, "192.0.2.0/24", "2001:db8::/64")
	host.Ping(world.IP(lab.V4))
	host.Run("ip", "route", "add", "default", "via", world.IP(lab.V4).String()) // pasta looks for one
	world.Serve()
	world.Start("iperf3", "-s")
	p := pair{way: "Out, by sockets"}
	add := func(f lab.Fabric, red *lab.NS, carriers func() []int) {
		for _, n := range []*lab.NS{red, host} {
			n.Run("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=1024 65535")
		}
		p.setups = append(p.setups, &setup{fabric: f, lab: l, red: red, green: world, carriers: carriers})
	}
	if !b.kernelOnly {
		d := l.DaemonIn(host, outsideYAML)
		add(d, l.NS("red-out").Attach("--network", "web"), func() []int { return []int{d.PID(), d.Status().Dataplane.PID} })
	}
	for _, r := range rivals() {
		red := l.NS("red-" + r.name)
		program := host.Start(r.args(red.Path())...)
		l.Eventually(r.name, 10*time.Second, func() bool { return strings.Contains(red.Run("ip", "route"), "default") })
		add(r, red, func() []int { return []int{program.PID()} })
	}
	return p
}
