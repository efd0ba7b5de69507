// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Plan is a routed topology that is built twice: by Sluice, and by the kernel
// with a namespace for each router and a bridge for each network. What hosts see
// in the one is what they must see in the other.
type Plan struct {
	Spaces []Space
	Hosts  []Host
}

// Space is a routing domain: a namespace of Sluice's, or a router.
type Space struct {
	Name  string
	Nets  []Net
	Links []Link
	// Routes and Rules are in ip(8)'s words, without the verb; networks and links are
	// devices. Rules of IPv6 begin with -6.
	Routes, Rules []string
}

// Net is a network. Its gateway has the first address of each subnet.
type Net struct {
	Name    string
	Subnets []string
	MTU     int // 0: 1500
}

// Link is one end of a link between two spaces; the other names this one.
type Link struct {
	Name, Peer, PeerLink string
	Addrs                []string
	MTU                  int // 0: 1500
}

// Host is a container. Number is the last part of its first addresses.
type Host struct {
	Name, Net string
	Number    int
	// More are further addresses, numbers as well.
	More []int
	// Behind are prefixes of which it is the router, with all their addresses its own.
	Behind []string
}

// World is a plan that was built.
type World struct {
	Name    string
	Hosts   map[string]*NS
	Gateway map[string]string // MAC address of each network's
	// Routers are the kernel's, by name of the space; nil in Sluice's.
	Routers map[string]*NS
	Daemon  *Daemon
}

// YAML is the file of the plan for `sluice apply`.
func (p *Plan) YAML() string {
	var b strings.Builder
	b.WriteString("namespaces:\n")
	for _, s := range p.Spaces {
		fmt.Fprintf(&b, "  - name: %s\n", s.Name)
		list(&b, "routes", s.Routes)
		list(&b, "rules", s.Rules)
		if len(s.Links) > 0 {
			b.WriteString("    links:\n")
		}
		for _, l := range s.Links {
			fmt.Fprintf(&b, "      - name: %s\n        peer: {namespace: %s, link: %s}\n        mtu: %d\n        addresses: [%s]\n",
				l.Name, l.Peer, l.PeerLink, mtuOf(l.MTU), strings.Join(l.Addrs, ", "))
		}
	}
	b.WriteString("networks:\n")
	for _, s := range p.Spaces {
		for _, n := range s.Nets {
			fmt.Fprintf(&b, "  - name: %s\n    namespace: %s\n    subnets: [%s]\n    mtu: %d\n    rpFilter: \"off\"\n",
				n.Name, s.Name, strings.Join(n.Subnets, ", "), mtuOf(n.MTU))
		}
	}
	return b.String()
}

func list(b *strings.Builder, name string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "    %s:\n", name)
	for _, l := range lines {
		fmt.Fprintf(b, "      - %s\n", l)
	}
}

func mtuOf(n int) int {
	if n == 0 {
		return 1500
	}
	return n
}

// net finds a network, with its place among all.
func (p *Plan) net(name string) (*Net, int) {
	i := 0
	for _, s := range p.Spaces {
		for j := range s.Nets {
			if s.Nets[j].Name == name {
				return &s.Nets[j], i
			}
			i++
		}
	}
	return nil, -1
}

// Addr is an address of a network, by its number.
func (p *Plan) Addr(net string, f Family, number int) netip.Addr {
	n, _ := p.net(net)
	for _, s := range n.Subnets {
		if a := netip.MustParsePrefix(s).Addr(); a.Is4() == (f == V4) {
			return plus(a, number)
		}
	}
	return netip.Addr{}
}

// MTU is that of a network.
func (p *Plan) MTU(net string) int {
	n, _ := p.net(net)
	return mtuOf(n.MTU)
}

func plus(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] += byte(n)
	b[len(b)-2] += byte(n >> 8)
	out, _ := netip.AddrFromSlice(b)
	return out
}

// HostMAC is the MAC address of a host in both worlds.
func (p *Plan) HostMAC(h *Host) string {
	_, i := p.net(h.Net)
	return fmt.Sprintf("02:00:0a:%02x:%02x:%02x", i+1, h.Number>>8, h.Number&0xff)
}

// Sluice builds the plan with Sluice. The containers are not guarded: they may
// use all their addresses, and send what they like.
func (l *Lab) Sluice(p *Plan) *World {
	l.t.Helper()
	d := l.Daemon(p.YAML())
	w := &World{Name: "Sluice", Hosts: map[string]*NS{}, Gateway: map[string]string{}, Daemon: d}
	for _, n := range d.Networks() {
		w.Gateway[n.Name] = n.MAC
	}
	for i := range p.Hosts {
		h := &p.Hosts[i]
		n := l.NS(h.Name)
		n.Attach("--network", h.Net, "--ip", p.Addr(h.Net, V4, h.Number).String(), "--ip6", p.Addr(h.Net, V6, h.Number).String(),
			"--mac", p.HostMAC(h), "--name", portOf(h), "--set", "guard off")
		p.dress(n, h)
		w.Hosts[h.Name] = n
	}
	return w
}

// Kernel builds the plan with routers of the kernel, whose gateways have the MAC
// addresses of another world's.
func (l *Lab) Kernel(p *Plan, like *World) *World {
	l.t.Helper()
	w := &World{Name: "kernel", Hosts: map[string]*NS{}, Gateway: like.Gateway, Routers: map[string]*NS{}}
	for i := range p.Spaces {
		w.Routers[p.Spaces[i].Name] = l.router(&p.Spaces[i], w.Gateway)
	}
	for i := range p.Spaces {
		l.connect(w, &p.Spaces[i])
	}
	for i := range p.Spaces {
		s := &p.Spaces[i]
		w.Routers[s.Name].Batch(Adds(s)...)
	}
	for i := range p.Hosts {
		w.Hosts[p.Hosts[i].Name] = l.plug(p, w, &p.Hosts[i])
	}
	return w
}

// verbs puts `route add` before lines, behind the option of family.
func verbs(object string, lines []string) []string {
	var out []string
	for _, l := range lines {
		rest, six := strings.CutPrefix(l, "-6 ")
		l = object + " add " + rest
		if six {
			l = "-6 " + l
		}
		out = append(out, l)
	}
	return out
}

// Adds are the lines of a batch that gives a space its routes and rules: a rule
// can make a gateway unreachable.
func Adds(s *Space) []string { return append(verbs("route", s.Routes), verbs("rule", s.Rules)...) }

// batch is a file of lines.
func (l *Lab) batch(lines []string) string {
	l.t.Helper()
	return l.File(fmt.Sprintf("batch-%d", l.count()), strings.Join(lines, "\n")+"\n")
}

// Batch carries out lines by `ip -batch`, which knows no option in a line: those
// that begin with -6 come last, by themselves.
func (n *NS) Batch(lines ...string) {
	n.lab.t.Helper()
	var plain, six []string
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, "-6 "); ok {
			six = append(six, rest)
		} else {
			plain = append(plain, l)
		}
	}
	if len(plain) > 0 {
		n.Run("ip", "-batch", n.lab.batch(plain))
	}
	if len(six) > 0 {
		n.Run("ip", "-6", "-batch", n.lab.batch(six))
	}
}

// TryBatch carries out all lines, also after one that fails, and prints each answer
// in a line.
func (n *NS) TryBatch(lines ...string) Result {
	n.lab.t.Helper()
	return n.Try("ip", "-oneline", "-force", "-batch", n.lab.batch(lines))
}

// Batch carries out lines by `sluice -batch`, in a namespace.
func (d *Daemon) Batch(space string, lines ...string) {
	d.lab.t.Helper()
	d.CLI("-n", space, "-batch", d.lab.batch(lines)).ok()
}

// TryBatch is as for a namespace of the kernel.
func (d *Daemon) TryBatch(space string, lines ...string) Result {
	d.lab.t.Helper()
	return d.CLI("-n", space, "-oneline", "-force", "-batch", d.lab.batch(lines))
}

// router makes a namespace that forwards, with a bridge for each network.
func (l *Lab) router(s *Space, gateway map[string]string) *NS {
	l.t.Helper()
	r := l.NS("r-" + s.Name)
	for _, set := range []string{
		"net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.router_solicitations=0",
		"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
	} {
		r.Run("sysctl", "-q", "-w", set)
	}
	for _, n := range s.Nets {
		r.Run("ip", "link", "add", n.Name, "address", gateway[n.Name], "mtu", strconv.Itoa(mtuOf(n.MTU)),
			"type", "bridge", "mcast_snooping", "0")
		for _, sub := range n.Subnets {
			pre := netip.MustParsePrefix(sub)
			r.Run("ip", "addr", "add", fmt.Sprintf("%v/%d", plus(pre.Addr(), 1), pre.Bits()), "dev", n.Name)
		}
		r.Run("ip", "link", "set", n.Name, "up")
	}
	return r
}

// connect makes those links of a space that it is the first end of.
func (l *Lab) connect(w *World, s *Space) {
	l.t.Helper()
	r := w.Routers[s.Name]
	for _, k := range s.Links {
		if r.Try("ip", "link", "show", "dev", k.Name).Code != 0 {
			r.Run("ip", "link", "add", k.Name, "mtu", strconv.Itoa(mtuOf(k.MTU)), "type", "veth",
				"peer", "name", k.PeerLink, "mtu", strconv.Itoa(mtuOf(k.MTU)), "netns", w.Routers[k.Peer].full)
		}
		for _, a := range k.Addrs {
			r.Run("ip", "addr", "add", a, "dev", k.Name)
		}
		r.Run("ip", "link", "set", k.Name, "up")
	}
}

// plug connects a host to its router's bridge, as attach would.
func (l *Lab) plug(p *Plan, w *World, h *Host) *NS {
	l.t.Helper()
	net, _ := p.net(h.Net)
	r, mtu := w.Routers[p.spaceOf(h.Net)], strconv.Itoa(mtuOf(net.MTU))
	n := l.NS(h.Name + "-k")
	port := portOf(h)
	r.Run("ip", "link", "add", port, "mtu", mtu, "type", "veth",
		"peer", "name", "eth0", "mtu", mtu, "address", p.HostMAC(h), "netns", n.full)
	r.Run("ip", "link", "set", port, "master", h.Net, "up")
	n.Run("ip", "link", "set", "eth0", "up")
	n.mac = p.HostMAC(h)
	for i, s := range net.Subnets {
		pre := netip.MustParsePrefix(s)
		a := plus(pre.Addr(), h.Number)
		n.Run("ip", "addr", "add", fmt.Sprintf("%v/%d", a, pre.Bits()), "dev", "eth0", "nodad")
		n.Run("ip", []string{"-4", "-6"}[i], "route", "add", "default", "via", plus(pre.Addr(), 1).String(), "dev", "eth0")
		n.addrs = append(n.addrs, a)
	}
	p.dress(n, h)
	return n
}

// portOf is what the port of a host is called in both worlds.
func portOf(h *Host) string { return "p" + h.Name }

func (p *Plan) spaceOf(net string) string {
	for _, s := range p.Spaces {
		for _, n := range s.Nets {
			if n.Name == net {
				return s.Name
			}
		}
	}
	return ""
}

// dress gives a host what attach doesn't: more addresses, and what is behind it.
func (p *Plan) dress(n *NS, h *Host) {
	n.lab.t.Helper()
	net, _ := p.net(h.Net)
	var lines []string
	for _, more := range h.More {
		for _, s := range net.Subnets {
			pre := netip.MustParsePrefix(s)
			lines = append(lines, fmt.Sprintf("addr add %v/%d dev eth0%s", plus(pre.Addr(), more), pre.Bits(), nodad(pre.Addr())))
		}
	}
	for _, b := range h.Behind {
		pre := netip.MustParsePrefix(b)
		lines = append(lines, fmt.Sprintf("route add local %v dev lo", pre))
	}
	n.Batch(lines...)
	if len(h.Behind) > 0 {
		n.Run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
}

func nodad(a netip.Addr) string {
	if a.Is4() {
		return ""
	}
	return " nodad"
}

// MAC is a MAC address as bytes.
func MAC(text string) (m [6]byte) {
	b, _ := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	copy(m[:], b)
	return m
}
