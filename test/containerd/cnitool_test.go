// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// cnitool is the program of libcni's own, built once.
var cnitool = sync.OnceValues(func() (string, error) {
	path := toolPath()
	if out, err := exec.Command("go", "build", "-o", path, "github.com/containernetworking/cni/cnitool").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cnitool: %w: %s", err, out)
	}
	return path, nil
})

// toolPath is where it is until the tests have ended.
func toolPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sluice-cnitool-%d", os.Getpid()))
}

// result is what of a result of CNI is looked at.
type result struct {
	CNIVersion string `json:"cniVersion"`
	IPs        []struct {
		Version string `json:"version"`
		Address string `json:"address"`
		Gateway string `json:"gateway"`
	} `json:"ips"`
}

// ips are the addresses without their lengths.
func (r result) ips() (out []string) {
	for _, ip := range r.IPs {
		addr, _, _ := strings.Cut(ip.Address, "/")
		out = append(out, addr)
	}
	return out
}

// list writes a network configuration with one plugin, ours, whose options are given.
func (n *node) list(version, name, options string) {
	n.t.Helper()
	text := fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[{"type":"sluice",%s}]}`, version, name, options)
	n.check(os.WriteFile(filepath.Join(n.dir, "etc/cni/net.d", name+".conflist"), []byte(text), 0o644))
}

// space makes a namespace in the node.
func (n *node) space(name string) {
	n.t.Helper()
	n.run("ip", "netns", "add", name)
	n.run("ip", "-n", name, "link", "set", "lo", "up")
}

// cni runs cnitool, which must succeed. The environment is NAME=VALUE.
func (n *node) cni(verb, network, space string, env ...string) string {
	n.t.Helper()
	out, err := n.tryCNI(verb, network, space, env...)
	if err != nil {
		n.t.Fatalf("cnitool %s %s %s: %v\n%s", verb, network, space, err, out)
	}
	return out
}

func (n *node) tryCNI(verb, network, space string, env ...string) (string, error) {
	tool, err := cnitool()
	n.check(err)
	args := append([]string{"env", "CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d", "CNI_IFNAME=eth0"}, env...)
	return n.try(append(args, tool, verb, network, "/run/netns/"+space)...)
}

// add runs ADD and reads its result.
func (n *node) add(network, space string, env ...string) (r result) {
	n.t.Helper()
	out := n.cni("add", network, space, env...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return r
}

// in is a command line in a namespace of the node.
func in(space string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", space}, args...)
}

// pings must be answered at once: ADD means ready.
func (n *node) pings(space, to string) {
	n.t.Helper()
	n.run(in(space, "busybox", "ping", "-c", "1", "-W", "10", to)...)
}

// empty checks that nothing is attached, and that nothing of it is left.
func (n *node) empty() {
	n.t.Helper()
	if out := n.sluice("link"); strings.TrimSpace(out) != "" {
		n.t.Errorf("left over:\n%s", out)
	}
	if out := n.sluice("publish"); strings.TrimSpace(out) != "" {
		n.t.Errorf("still published:\n%s", out)
	}
}

// TestVersions: all verbs of libcni, by each version of the specification.
func TestVersions(t *testing.T) {
	n := startBareNode(t)
	for i, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			name, space := fmt.Sprintf("frontend-of-%d", i), fmt.Sprintf("c%d", i)
			n.list(version, name, fmt.Sprintf(`"ipam":{"ranges":[[{"subnet":"10.90.%d.0/24"}],[{"subnet":"fd90:%d::/64"}]]}`, i, i))
			n.space(space)
			r := n.add(name, space)
			if r.CNIVersion != version || len(r.IPs) != 2 || r.IPs[0].Gateway != fmt.Sprintf("10.90.%d.1", i) {
				t.Errorf("result is %+v", r)
			}
			for _, ip := range r.IPs {
				n.pings(space, ip.Gateway)
			}
			n.pings(space, hostAddr(t, n))
			if version != "0.3.1" { // which has no CHECK
				n.cni("check", name, space)
				n.run("ip", "-n", space, "link", "set", "eth0", "down")
				out, err := n.tryCNI("check", name, space)
				if wants(t, out, "the interface is down"); err == nil {
					t.Errorf("CHECK finds nothing: %s", out)
				}
			}
			if version == "1.1.0" {
				n.cni("status", name, space)
			}
			for range 2 {
				n.cni("del", name, space)
			}
			n.empty()
			n.add(name, space)
			n.cni("gc", name, space)
			n.empty()
			wants(t, n.sluice("network", "del", name), "remove network "+name)
		})
	}
	if out := n.run("ip", "-br", "link", "show", "type", "veth"); out != "" {
		t.Errorf("left on the host: %s", out)
	}
}

// TestDelegatedAddresses: host-local and static give the addresses, and get them back.
func TestDelegatedAddresses(t *testing.T) {
	n := startBareNode(t)
	n.list("1.0.0", "leased", `"ipam":{"type":"host-local","ranges":[[{"subnet":"10.91.0.0/24","rangeStart":"10.91.0.20"}],[{"subnet":"fd91::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}`)
	n.list("1.0.0", "fixed", `"ipam":{"type":"static","addresses":[{"address":"10.92.0.77/24","gateway":"10.92.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`)
	leases := func() string {
		out, _ := n.try("sh", "-c", "ls /var/lib/cni/networks/leased | grep -v lock | grep -v last_")
		return strings.TrimSpace(out)
	}
	n.space("a")
	n.space("b")
	r := n.add("leased", "a")
	if got := r.ips(); len(got) != 2 || got[0] != "10.91.0.20" {
		t.Errorf("got %q", got)
	}
	wants(t, leases(), "10.91.0.20")
	n.cni("check", "leased", "a")
	n.pings("a", "10.91.0.1")
	was := leases()
	n.run("ip", "-n", "b", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
	out, err := n.tryCNI("add", "leased", "b")
	if wants(t, out, "exists already"); err == nil {
		t.Error("ADD gave an interface that was there")
	}
	if leases() != was {
		t.Errorf("after an ADD that failed there are leases of %q, there were %q", leases(), was)
	}
	n.cni("del", "leased", "a")
	if got := leases(); got != "" {
		t.Errorf("still leased: %s", got)
	}
	n.run("ip", "-n", "b", "link", "del", "eth0")
	n.add("fixed", "b")
	n.pings("b", "10.92.0.1")
	wants(t, n.run("ip", "-n", "b", "-o", "addr", "show", "eth0"), "10.92.0.77/24")
	n.cni("del", "fixed", "b")
	n.empty()
}

// TestSeveralInterfaces: one namespace in two networks, as Multus makes it, and lists of
// one family only.
func TestSeveralInterfaces(t *testing.T) {
	n := startBareNode(t)
	n.list("1.0.0", "four", `"ipam":{"ranges":[[{"subnet":"10.93.0.0/24"}]]}`)
	n.list("1.0.0", "six", `"isDefaultGateway":true,"ipam":{"ranges":[[{"subnet":"fd93::/64"}]]}`)
	n.list("1.0.0", "storage", `"uplink":"none","isDefaultGateway":false,"ipam":{"ranges":[[{"subnet":"10.94.0.0/24"}]]}`)
	n.space("a")
	n.space("b")
	n.add("four", "a")
	n.add("storage", "a", "CNI_IFNAME=net1")
	n.add("six", "b")
	peer := n.add("storage", "b", "CNI_IFNAME=an_odd-name.15c").ips()[0]
	n.pings("a", "10.93.0.1")
	n.pings("a", peer)
	n.pings("b", "fd93::1")
	if out := n.run("ip", "-n", "b", "-4", "route", "show", "default"); out != "" {
		t.Errorf("a container without IPv4 has the route %s", out)
	}
	n.cni("del", "four", "a")
	n.pings("a", peer)
	n.cni("check", "storage", "a", "CNI_IFNAME=net1")
	n.cni("del", "storage", "a", "CNI_IFNAME=net1")
	n.run("ip", "netns", "del", "b") // with all that it has
	n.eventually("the daemon to notice", func() bool { return strings.TrimSpace(n.sluice("link")) == "" })
	n.empty()
}

// TestPortsOfOneAddress: a port on 127.0.0.1 is not one on the host's other addresses,
// and UDP is not TCP.
func TestPortsOfOneAddress(t *testing.T) {
	n := startBareNode(t)
	n.list("1.0.0", "ported", `"capabilities":{"portMappings":true},"ipam":{"ranges":[[{"subnet":"10.95.0.0/24"}]]}`)
	n.space("a")
	n.space("b")
	mapping := `CAP_ARGS={"portMappings":[{"hostPort":5300,"containerPort":53,"protocol":"udp","hostIP":"127.0.0.1"},{"hostPort":5300,"containerPort":80,"protocol":"tcp"}]}`
	n.add("ported", "a", mapping)
	n.echo("a", "53")
	n.cni("check", "ported", "a", mapping)
	n.eventually("an echo", func() bool { _, err := n.ask("127.0.0.1:5300"); return err == nil })
	if answer, err := n.ask(net.JoinHostPort(hostAddr(t, n), "5300")); err == nil {
		t.Errorf("it is answered on all addresses: %s", answer)
	}
	out, err := n.tryCNI("add", "ported", "b", mapping)
	if wants(t, out, "is published for cnitool-"); err == nil {
		t.Error("a port was given twice")
	}
	n.sluice("-n", "ported", "publish", "del", "tcp", "5300")
	out, _ = n.tryCNI("check", "ported", "a", mapping)
	wants(t, out, "port tcp 5300 is not published")
	n.cni("del", "ported", "a", mapping)
	n.empty()
	n.add("ported", "b", mapping)
	n.echo("b", "53")
	n.eventually("an echo of the next one", func() bool { _, err := n.ask("127.0.0.1:5300"); return err == nil })
	n.cni("del", "ported", "b", mapping)
	n.empty()
}

// TestKilledBetween: sluiced, its dataplane, or both are killed between one container
// and the next; the first one goes on, and what was deleted meanwhile is.
func TestKilledBetween(t *testing.T) {
	n := startBareNode(t)
	n.list("1.1.0", "killed", `"ipam":{"ranges":[[{"subnet":"10.96.0.0/24"}]]}`)
	n.space("first")
	first := n.add("killed", "first").ips()[0]
	seen := map[string]bool{first: true}
	for i, victims := range []string{"agent", "dataplane", "agent dataplane"} {
		space := fmt.Sprintf("s%d", i)
		n.space(space)
		n.space(space + "-gone")
		gone := n.add("killed", space+"-gone").ips()[0]
		s := n.status()
		if strings.Contains(victims, "agent") {
			n.run("kill", "-9", fmt.Sprint(s.PID))
		}
		if strings.Contains(victims, "dataplane") {
			n.run("kill", "-9", fmt.Sprint(s.Dataplane.PID))
		}
		n.cni("del", "killed", space+"-gone") // which is left for the daemon
		if strings.Contains(victims, "agent") {
			n.startDaemon()
		}
		ip := n.add("killed", space).ips()[0]
		if seen[ip] {
			t.Errorf("%s was given twice", ip)
		}
		seen[ip] = true
		n.eventually("packets", func() bool {
			_, err := n.try(in(space, "busybox", "ping", "-c", "1", "-W", "1", first)...)
			return err == nil
		})
		if strings.Contains(n.sluice("link"), gone+"/") {
			t.Errorf("%s: what was deleted is there", victims)
		}
	}
	n.cni("gc", "killed", "first")
	n.empty()
}

// TestKilledPlugin: the plugin is killed at some moment of an ADD, by which another plugin
// has leased the address or not; a DEL then leaves nothing.
func TestKilledPlugin(t *testing.T) {
	n := startBareNode(t)
	n.list("1.0.0", "torn", `"capabilities":{"portMappings":true},"ipam":{"type":"host-local","ranges":[[{"subnet":"10.98.0.0/24"}]]}`)
	tool, err := cnitool()
	n.check(err)
	mapping := `CAP_ARGS={"portMappings":[{"hostPort":5400,"containerPort":80,"protocol":"tcp"}]}`
	n.space("a")
	for i := range 10 {
		after := fmt.Sprintf("0.%03d", 3+4*i)
		_, _ = n.try("env", "CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d", "CNI_IFNAME=eth0", mapping,
			"timeout", "-s", "KILL", after, tool, "add", "torn", "/run/netns/a")
		n.eventually("a DEL", func() bool { _, err := n.tryCNI("del", "torn", "a", mapping); return err == nil })
		n.eventually("nothing left", func() bool {
			leases, _ := n.try("sh", "-c", "ls /var/lib/cni/networks/torn | grep '^10'")
			return strings.TrimSpace(leases+n.sluice("link")+n.sluice("publish")+n.run("ip", "-n", "a", "-br", "link", "show", "type", "veth")) == ""
		})
	}
	n.add("torn", "a", mapping)
	n.pings("a", "10.98.0.1")
	n.cni("del", "torn", "a", mapping)
	n.empty()
}
