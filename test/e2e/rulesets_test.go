// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/test/lab"
)

// Rulesets of the shapes that others write are in testdata/rulesets, written anew: those
// of nft's examples, of firewalld, Docker and kube-proxy. Each is loaded into Sluice by
// `sluice nft -f`, and into a router of the kernel by `nft -f`; the same packets go
// through both, one after the other.
//
//	out, out2 -- eth0    10.90.0.0/24 --.
//	in, in2 ---- eth1    10.91.0.0/24 --+-- core
//	c1, c2 ----- docker0 10.92.0.0/24 --+
//	pod1, pod2 - cni0    10.93.0.0/24 --'
func rulesetsPlan() *lab.Plan {
	p := &lab.Plan{Spaces: []lab.Space{{Name: "core"}}}
	for i, n := range []string{"eth0", "eth1", "docker0", "cni0"} {
		net := lab.Net{Name: n, MTU: []int{1500, 1500, 1500, 1400}[i], Subnets: []string{fmt.Sprintf("10.9%d.0.0/24", i), fmt.Sprintf("fd9%d::/64", i)}}
		p.Spaces[0].Nets = append(p.Spaces[0].Nets, net)
		for j, h := range strings.Fields([]string{"out out2", "in in2", "c1 c2", "pod1 pod2"}[i]) {
			p.Hosts = append(p.Hosts, lab.Host{Name: h, Net: n, Number: j + 2})
		}
	}
	// Who is beyond eth0, and addresses of services.
	p.Spaces[0].Routes = []string{"default via 10.90.0.2", "default via fd90::2"}
	return p
}

// stage is both worlds, with the hosts in the test's hands.
type stage struct {
	t      *testing.T
	plan   *lab.Plan
	worlds [2]*troupe
	anew   string // a file: the ruleset in place of all there is
}

// The worlds.
const (
	kernelWorld = iota
	sluiceWorld
)

// troupe are the hosts of one world.
type troupe struct {
	*lab.World
	wires map[string]*lab.Wire
	heard map[string][]byte // what each host was sent last
}

func newStage(t *testing.T) *stage {
	t.Helper()
	l := lab.New(t)
	s := &stage{t: t, plan: rulesetsPlan()}
	ours := l.Sluice(s.plan)
	s.worlds = [2]*troupe{{World: l.Kernel(s.plan, ours)}, {World: ours}}
	router := s.router()
	router.Run("sysctl", "-q", "-w", "net.ipv4.conf.all.send_redirects=0")
	_ = router.Try("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0", "net.bridge.bridge-nf-call-arptables=0")
	for _, n := range s.plan.Spaces[0].Nets { // what the router says itself has whole checksums
		router.Run("ethtool", "-K", n.Name, "tx", "off")
		router.Run("sysctl", "-q", "-w", "net.ipv4.conf."+n.Name+".send_redirects=0")
		ours.Daemon.CLI("link", "set", n.Name, "redirects", "off").Expect(0)
	}
	for _, w := range s.worlds {
		w.wires = map[string]*lab.Wire{}
		for name, n := range w.Hosts {
			w.wires[name] = n.Wire()
		}
	}
	var known []string // as Sluice knows who is attached
	for i := range s.plan.Hosts {
		h := &s.plan.Hosts[i]
		for _, f := range both() {
			known = append(known, fmt.Sprintf("neigh replace %v lladdr %s dev %s nud permanent", s.plan.Addr(h.Net, f, h.Number), s.plan.HostMAC(h), h.Net))
		}
	}
	router.Batch(known...)
	return s
}

// router is the kernel's.
func (s *stage) router() *lab.NS { return s.worlds[kernelWorld].Routers["core"] }

// load loads a ruleset into both.
func (s *stage) load(file string) {
	s.t.Helper()
	s.router().Run("nft", "flush", "ruleset")
	s.router().Run("nft", "-f", file)
	s.router().Run("conntrack", "-F")
	d := s.worlds[sluiceWorld].Daemon
	d.CLI("nft", "flush", "ruleset").Expect(0)
	d.CLI("nft", "-f", file).Expect(0)
	d.CLI("conntrack", "-F").Expect(0)
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.anew = d.Lab().File("anew-"+filepath.Base(file), "flush ruleset\n"+string(text))
	for _, w := range s.worlds {
		w.heard = map[string][]byte{}
	}
}

// expiry is what is left of a timeout.
var (
	expiry      = regexp.MustCompile(`expires [0-9dhms]+`)
	tableHandle = regexp.MustCompile(`(?m)^(table .* \{ # handle) \d+$`)
)

// listings compares how both list what they have: with all counters, and as numbers with
// handles. Those of tables no two agree in.
func (s *stage) listings() {
	s.t.Helper()
	for _, options := range [][]string{nil, {"-nas"}} {
		words := append(append([]string{"nft"}, options...), "list", "ruleset")
		theirs := s.router().Run(words...)
		ours := s.worlds[sluiceWorld].Daemon.CLI(words...)
		ours.Expect(0)
		cut := func(text string) string {
			return tableHandle.ReplaceAllString(expiry.ReplaceAllString(text, "expires soon"), "$1")
		}
		if d := cmp.Diff(cut(theirs), cut(ours.Out)); d != "" {
			s.t.Errorf("%v lists otherwise (-kernel +Sluice):\n%s", words, d)
		}
	}
}

// pass lets a host of both worlds send a frame, and returns what all hosts were sent in
// each.
func (s *stage) pass(from string, frames [2][]byte) (out [2]map[string][][]byte) {
	s.t.Helper()
	most := 0
	for i, w := range s.worlds {
		w.wires[from].Send(frames[i])
		mark, witness := w.wires[from].Mark(), w.wires[s.neighbour(from)]
		out[i] = map[string][][]byte{}
		n := 0
		for end := time.Now().Add(patience / 2); time.Now().Before(end) && (witness.Seen() != mark || n < most); {
			n += s.collect(w, out[i])
			if witness.Seen() != mark {
				time.Sleep(100 * time.Microsecond)
			}
		}
		if witness.Seen() != mark {
			s.t.Fatalf("%s: what %s sends does not arrive", w.Name, from)
		}
		most = max(most, n)
	}
	return out
}

// collect takes what hosts were sent, without what is no IP and what nobody asked for.
func (s *stage) collect(w *troupe, out map[string][][]byte) (n int) {
	for name, wire := range w.wires {
		for _, b := range wire.Receive() {
			if lab.MAC(w.Hosts[name].MAC()) != [6]byte(b) || !isIP(b) {
				continue
			}
			out[name] = append(out[name], b)
			w.heard[name] = b
			n++
		}
	}
	return n
}

func isIP(b []byte) bool {
	const redirect = 137 // which no sysctl forbids the kernel to send
	var v packet.View
	if v.Parse(b) != packet.FaultNone || !v.Is(packet.ViewIP) {
		return false
	}
	return v.Proto != packet.ProtoICMPv6 || !v.Is(packet.ViewHasL4) || !isChatter(v.Proto, b[v.L4]) && b[v.L4] != redirect
}

// neighbour is the other host of a network.
func (s *stage) neighbour(host string) string {
	i := slices.IndexFunc(s.plan.Hosts, func(h lab.Host) bool { return h.Name == host })
	return s.plan.Hosts[i^1].Name
}

// canon is a packet in a line, without what is left to chance.
func canon(b []byte, loose bool) string {
	b = slices.Clone(b)
	var v packet.View
	v.Parse(b)
	what := pt.Describe(b)
	if !packet.VerifyL3(b, &v) || v.Is(packet.ViewHasL4) && !packet.VerifyL4(b, &v) {
		what += " BAD SUM"
	}
	if loose {
		return freely.ReplaceAllString(what, "${1}any${2}")
	}
	s, _ := normal(b)
	_, digits, _ := strings.Cut(s, " | ")
	return what + " | " + digits
}

func anyPod(lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, pods.ReplaceAllString(l, "${1}${2}N"))
	}
	return out
}

// What a ruleset leaves to chance: which of two pods is chosen, and the port that a source gets.
var pods = regexp.MustCompile(`(pod)[12]\b|(10\.93\.0\.)[23]\b`)

var freely = regexp.MustCompile(`(10\.9[0-3]\.0\.1(?:02)?:)\d+( > )`)

// play is a ruleset, and what is sent through it. A line is one packet, and
// who is sent which:
//
//	out tcp 10.90.0.2:5000 > 10.90.0.1:8080 syn => c1 > 10.92.0.2:80
//	c1 answers => out 10.90.0.1:8080 >
//	out udp 10.90.0.2:5000 > 10.92.0.2:53 => -
//
// Who answers turns round what it was sent last; "complains" is an ICMP error about it. "-"
// is nobody, "pod" either of the two. With ~> the router chooses the port of the source as
// it likes. A line "reload" loads the ruleset once more, in place of itself.
type play struct{ file, lines string }

// TestRulesetsOfOthers plays all plays.
func TestRulesetsOfOthers(t *testing.T) {
	s := newStage(t)
	files, err := filepath.Glob("testdata/rulesets/*.nft")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plays() {
		file, _ := filepath.Abs("testdata/rulesets/" + c.file)
		files = slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f) == c.file })
		t.Run(strings.TrimSuffix(c.file, ".nft"), func(t *testing.T) {
			x := *s
			x.t = t
			x.load(file)
			for line := range strings.Lines(c.lines) {
				if line = strings.TrimSpace(line); line != "" {
					x.step(line)
				}
			}
			time.Sleep(30 * time.Millisecond)
			for _, w := range x.worlds {
				late := map[string][][]byte{}
				if x.collect(w, late) > 0 {
					t.Errorf("%s: more is sent: %v", w.Name, heardIn(late, false))
				}
			}
			x.listings()
		})
	}
	if st := s.worlds[sluiceWorld].Daemon.Status(); st.Dataplane.Restarts != 0 {
		t.Errorf("the dataplane has ended %d times", st.Dataplane.Restarts)
	}
	hits := uint64(0)
	for _, l := range s.worlds[sluiceWorld].Daemon.Links() {
		hits += l.Stats.FlowHits
	}
	if hits < 20 {
		t.Errorf("%d packets by the flow cache", hits)
	}
	if len(files) > 0 {
		t.Errorf("without a play: %v", files)
	}
}

// step is one line of a play.
func (s *stage) step(line string) {
	s.t.Helper()
	if line == "reload" { // what is connected stays so
		s.router().Run("nft", "-f", s.anew)
		s.worlds[sluiceWorld].Daemon.CLI("nft", "-f", s.anew).Expect(0)
		return
	}
	does, wants, ok := strings.Cut(line, " => ")
	loose := false
	if !ok {
		does, wants, loose = strings.Cut(line, " ~> ")
		ok = loose
	}
	words := strings.Fields(does)
	if !ok || len(words) < 2 {
		s.t.Fatalf("no step: %s", line)
	}
	var frames [2][]byte
	for i, w := range s.worlds {
		p, err := s.packetOf(words, w.heard[words[0]])
		if err != nil {
			s.t.Fatalf("%s: %s: %v", w.Name, line, err)
		}
		frames[i] = p
	}
	for range howOften(words) {
		s.compare(line, words[0], wants, frames, loose)
	}
}

// howOften is how often a packet is sent.
func howOften(words []string) int {
	n := 1
	for _, w := range words {
		_, _ = fmt.Sscanf(w, "times=%d", &n)
	}
	return n
}

// compare sends a packet in both worlds.
func (s *stage) compare(line, from, wants string, frames [2][]byte, loose bool) {
	s.t.Helper()
	out := s.pass(from, frames)
	theirs, ours := heardIn(out[kernelWorld], loose), heardIn(out[sluiceWorld], loose)
	to, text, _ := strings.Cut(wants, " ")
	if to == "pod" { // one of them
		theirs, ours = anyPod(theirs), anyPod(ours)
	}
	if d := cmp.Diff(theirs, ours); d != "" {
		s.t.Errorf("%s (-kernel +Sluice):\n%s", line, d)
	}
	if to == "-" && len(theirs) > 0 || to != "-" && (len(theirs) != 1 || !strings.HasPrefix(theirs[0], to) || !strings.Contains(theirs[0], text)) {
		s.t.Errorf("%s: the kernel sends %v", line, theirs)
	}
}

// heardIn is what hosts were sent, in lines.
func heardIn(all map[string][][]byte, loose bool) (out []string) {
	for name, frames := range all {
		for _, b := range frames {
			out = append(out, name+": "+canon(b, loose))
		}
	}
	slices.Sort(out)
	return out
}

// packetOf is what a step sends; last is what its host was sent before.
func (s *stage) packetOf(words []string, last []byte) ([]byte, error) {
	i := slices.IndexFunc(s.plan.Hosts, func(h lab.Host) bool { return h.Name == words[0] })
	h := &s.plan.Hosts[i]
	eth := pt.EtherHdr{Src: pt.HW(s.plan.HostMAC(h)), Dst: pt.HW(s.worlds[sluiceWorld].Gateway[h.Net])}
	switch words[1] {
	case "answers":
		return answerTo(eth, last, words[2:])
	case "complains":
		return complaint(eth, last)
	}
	if len(words) < 5 || words[3] != ">" {
		return nil, fmt.Errorf("want PROTO SOURCE > DESTINATION")
	}
	src, sport := endpoint(words[2])
	dst, dport := endpoint(words[4])
	if peer := slices.IndexFunc(s.plan.Hosts, func(o lab.Host) bool {
		return o.Net == h.Net && (s.plan.Addr(o.Net, lab.V4, o.Number) == dst || s.plan.Addr(o.Net, lab.V6, o.Number) == dst)
	}); peer >= 0 {
		eth.Dst = pt.HW(s.plan.HostMAC(&s.plan.Hosts[peer]))
	}
	return built(eth, words[1], netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport), words[5:]), nil
}

func endpoint(text string) (netip.Addr, uint16) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr(), ap.Port()
	}
	return netip.MustParseAddr(text), 0
}

// answerTo turns a packet round: SYN is answered by SYN and ACK, all else of TCP by ACK,
// a ping by a reply.
func answerTo(eth pt.EtherHdr, last []byte, words []string) ([]byte, error) {
	var v packet.View
	if last == nil || v.Parse(last) != packet.FaultNone || !v.Is(packet.ViewHasL4) {
		return nil, fmt.Errorf("there is nothing to answer")
	}
	eth.Dst = packet.MAC(last[6:])
	src, dst := netip.AddrPortFrom(v.DstAddr(last), v.DstPort), netip.AddrPortFrom(v.SrcAddr(last), v.SrcPort)
	switch v.Proto {
	case packet.ProtoTCP:
		flags := "ack"
		if last[v.L4+13]&(pt.SYN|pt.ACK) == pt.SYN {
			flags = "syn,ack"
		}
		return built(eth, "tcp", src, dst, append([]string{flags}, words...)), nil
	case packet.ProtoUDP:
		return built(eth, "udp", src, dst, words), nil
	}
	return built(eth, "pong", src, dst, append(words, fmt.Sprintf("id=%d", binary.BigEndian.Uint16(last[v.L4+4:])))), nil
}

// complaint says of a packet that its port is closed.
func complaint(eth pt.EtherHdr, last []byte) ([]byte, error) {
	var v packet.View
	if last == nil || v.Parse(last) != packet.FaultNone || !v.Is(packet.ViewIP) {
		return nil, fmt.Errorf("there is nothing to complain about")
	}
	eth.Dst = packet.MAC(last[6:])
	quote := pt.Payload(last[v.L3:v.End])
	src, dst := v.DstAddr(last), v.SrcAddr(last)
	if src.Is6() {
		return pt.Build(eth, pt.IPv6Hdr{Src: src, Dst: dst}, pt.ICMPHdr{V6: true, Type: packet.ICMP6Unreach, Code: packet.ICMP6PortUnreach}, quote), nil
	}
	return pt.Build(eth, pt.IPv4Hdr{Src: src, Dst: dst, ID: 8}, pt.ICMPHdr{Type: packet.ICMPUnreach, Code: packet.ICMPPortUnreach}, quote), nil
}

// built is a packet in the words of a step: TCP's flags, a hop limit and others.
func built(eth pt.EtherHdr, proto string, src, dst netip.AddrPort, words []string) []byte {
	v6 := src.Addr().Is6()
	var flags uint8
	hops, id, mss := uint8(64), uint16(77), uint16(0)
	for _, w := range words {
		_, _ = fmt.Sscanf(w, "mss=%d", &mss)
		_, _ = fmt.Sscanf(w, "ttl=%d", &hops)
		_, _ = fmt.Sscanf(w, "id=%d", &id)
		for f := range strings.SplitSeq(w, ",") {
			flags |= map[string]uint8{"syn": pt.SYN, "ack": pt.ACK, "fin": pt.FIN, "rst": pt.RST}[f]
		}
	}
	var l4 pt.Layer
	switch proto {
	case "tcp":
		tcp := pt.TCPHdr{SrcPort: src.Port(), DstPort: dst.Port(), Flags: flags, Seq: 1000, Ack: 1001}
		if mss > 0 {
			tcp.Options = []byte{2, 4, byte(mss >> 8), byte(mss)}
		}
		l4 = tcp
	case "udp":
		l4 = pt.UDPHdr{SrcPort: src.Port(), DstPort: dst.Port()}
	default:
		kind := map[string]uint8{"ping": 8, "pong": 0}[proto]
		if v6 {
			kind = map[string]uint8{"ping": 128, "pong": 129}[proto]
		}
		l4 = pt.ICMPHdr{V6: v6, Type: kind, ID: id, Seq: 1}
	}
	if v6 {
		return pt.Build(eth, pt.IPv6Hdr{Src: src.Addr(), Dst: dst.Addr(), HopLimit: hops}, l4, pt.Bytes(20))
	}
	return pt.Build(eth, pt.IPv4Hdr{Src: src.Addr(), Dst: dst.Addr(), TTL: hops, ID: 7}, l4, pt.Bytes(20))
}

// refusedExamples are what of nft's own examples is not supported.
func refusedExamples() map[string]string {
	return map[string]string{
		"ct_helpers.nft":     "ct helper objects are not supported",
		"load_balancing.nft": "fwd statements are not supported",
		"secmark.nft":        "secmark objects are not supported",
	}
}

// TestShippedExamples loads the examples that come with nft into both, with names of
// devices that there are: they are listed alike, or refused for what is not supported.
func TestShippedExamples(t *testing.T) {
	files, _ := filepath.Glob("/usr/share/doc/nftables/examples/*.nft")
	if len(files) == 0 {
		t.Skip("nft's examples are not installed")
	}
	s := newStage(t)
	d := s.worlds[sluiceWorld].Daemon
	d.CLI("nft", "-f", "/usr/share/doc/nftables/examples/netdev-ingress.nft").Expect(1, `device "lo" is no container's port`)
	rename := strings.NewReplacer("eth2", "docker0", "eth3", "cni0", "bond0", "eth0", "bond1", "eth1", "device lo ", "device pin ")
	var copies []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, d.Lab().File(filepath.Base(file), rename.Replace(string(text))))
	}
	refused := refusedExamples()
	for _, file := range copies {
		name := filepath.Base(file)
		d.CLI("nft", "flush ruleset; add table filter").Expect(0)
		if why := refused[name]; why != "" {
			d.CLI("nft", "-f", file).Expect(1, name+":", why)
			continue
		}
		s.router().Run("nft", "flush ruleset; add table filter")
		s.router().Run("sh", "-c", "cd "+filepath.Dir(file)+" && nft -f "+name)
		d.Lab().Run("sh", "-c", "cd "+filepath.Dir(file)+" && "+strings.Join(d.Command("nft", "-f", name), " "))
		s.listings()
	}
}
