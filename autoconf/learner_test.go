// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

const learnerMAC = "02:aa:bb:cc:dd:01"

// hub is a link with a Learner and a Server, whose time a test moves.
type hub struct {
	t       *testing.T
	now     int64
	l       *Learner
	s       *Server
	client  Client
	deaf    bool // the Server hears nothing
	sent    [][]byte
	inbox   [][]byte // on their way to the Learner
	changes int
}

func newHub(t *testing.T, c Config, learn Learn) *hub {
	t.Helper()
	h := &hub{t: t, now: 1000, l: NewLearner(1), s: New(2)}
	h.client = Client{MAC: mac(learnerMAC), Name: "wan", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}}
	h.serve(c)
	h.learn(learn)
	return h
}

func (h *hub) serve(c Config) {
	h.t.Helper()
	ready, err := h.s.Prepare(Link{
		MAC: mac(gatewayMAC), MTU: 1500,
		Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
	}, c)
	if err != nil {
		h.t.Fatal(err)
	}
	ready.Commit()
}

func (h *hub) learn(c Learn) {
	h.t.Helper()
	commit, err := h.l.Change(Link{MAC: mac(learnerMAC), MTU: 1500}, c)
	if err != nil {
		h.t.Fatal(err)
	}
	commit()
}

// emit is the link: what the Learner sends reaches the Server, and its answer the Learner.
func (h *hub) emit(frame []byte) {
	h.sent = append(h.sent, slices.Clone(frame))
	if h.deaf {
		return
	}
	f := pt.Frame(frame)
	if out, _ := h.s.Input(nil, f, &h.client, uint32(h.now)); len(out) > 0 {
		h.waiting(slices.Clone(out))
	}
}

func (h *hub) waiting(b []byte) { h.inbox = append(h.inbox, b) }

func (h *hub) deliver() {
	for len(h.inbox) > 0 {
		b := h.inbox[0]
		h.inbox = h.inbox[1:]
		_, changed := h.l.Input(pt.Frame(b), h.now, h.emit)
		h.count(changed)
	}
}

func (h *hub) count(changed bool) {
	if changed {
		h.changes++
	}
}

// pass lets seconds pass.
func (h *hub) pass(seconds int64) {
	for range seconds {
		h.now++
		h.count(h.l.Tick(h.now, h.emit))
		h.deliver()
		if out := h.s.Tick(nil, uint32(h.now)); len(out) > 0 && !h.deaf {
			h.waiting(slices.Clone(out))
			h.deliver()
		}
	}
}

// has is what follows from what is learned, in a line.
func (h *hub) has() string {
	is := h.l.Learned()
	var w []string
	for _, a := range is.Addresses() {
		w = append(w, a.String())
	}
	for _, r := range is.AllRoutes() {
		w = append(w, r.Dst.String()+">"+r.Via.String())
	}
	for _, s := range is.Nameservers() {
		w = append(w, "dns="+s.String())
	}
	return strings.Join(w, " ")
}

func (h *hub) expect(want string) {
	h.t.Helper()
	if got := h.has(); got != want {
		h.t.Errorf("at %d: %q, want %q", h.now, got, want)
	}
}

const (
	lease4 = "192.0.2.7/24 0.0.0.0/0>192.0.2.1 dns=192.0.2.53"
)

func leases(seconds uint32) Config {
	return Config{DHCP4: &DHCP4{Lease: seconds, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}}
}

func TestLearnerLeases(t *testing.T) {
	h := newHub(t, leases(100), Learn{DHCP: true})
	h.pass(1)
	h.expect("") // it is asked whether somebody has the address
	h.pass(2)
	h.expect(lease4)
	sent := len(h.sent)
	h.pass(45)
	if len(h.sent) != sent {
		t.Errorf("%d messages before half of the lease is over", len(h.sent)-sent)
	}
	h.pass(200) // and is renewed
	h.expect(lease4)
	for _, b := range h.sent[sent:] {
		pt.Check(t, b, pt.EtherDst(mac(gatewayMAC)), pt.IPv4(pt.Src("192.0.2.7"), pt.Dst("192.0.2.1")), pt.UDP(pt.SrcPort(68), pt.DstPort(67)))
	}
	if h.changes < 4 { // the first, and each that prolongs
		t.Errorf("told %d times", h.changes)
	}
}

// TestLearnerExpires: nobody renews, then any server is asked, and then it is over.
func TestLearnerExpires(t *testing.T) {
	h := newHub(t, leases(100), Learn{DHCP: true})
	h.pass(3)
	h.deaf = true
	h.pass(96)
	h.expect(lease4)
	pt.Check(t, h.sent[len(h.sent)-1], pt.EtherDst(packet.Broadcast()), pt.IPv4(pt.Src("192.0.2.7"), pt.Dst("255.255.255.255")), pt.UDP(pt.DstPort(67)))
	h.pass(3)
	h.expect("")
	pt.Check(t, h.sent[len(h.sent)-1], pt.IPv4(pt.Src("0.0.0.0"), pt.Dst("255.255.255.255")), pt.UDP(pt.DstPort(67)))
	h.deaf = false
	h.pass(70)
	h.expect(lease4)
}

// TestLearnerGoesOn: another one with what the first held uses it at once, and confirms
// it.
func TestLearnerGoesOn(t *testing.T) {
	h := newHub(t, leases(100), Learn{DHCP: true})
	h.pass(5)
	held := h.l.Learned()
	h.l, h.sent = NewLearner(3), nil
	h.learn(Learn{DHCP: true, Held: &held})
	h.expect(lease4)
	h.pass(1)
	pt.Check(t, h.sent[0], pt.IPv4(pt.Src("0.0.0.0"), pt.Dst("255.255.255.255")), pt.UDP(pt.DstPort(67)))
	h.expect(lease4)
	// Nobody confirms the third one's: it is used until it ends.
	h.l, h.deaf = NewLearner(4), true
	h.learn(Learn{DHCP: true, Held: &held})
	h.pass(80)
	h.expect(lease4)
	h.pass(20)
	h.expect("")
}

// TestLearnerIsRefused: what it held is another network's.
func TestLearnerIsRefused(t *testing.T) {
	h := newHub(t, leases(100), Learn{DHCP: true})
	h.pass(5)
	h.client.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.8")}
	h.learn(Learn{DHCP: true, Again: 1}) // the link was interrupted
	h.expect(lease4)
	h.pass(5)
	h.expect(strings.Replace(lease4, "2.7", "2.8", 1))
}

func TestLearnerDeclines(t *testing.T) {
	h := newHub(t, leases(100), Learn{DHCP: true})
	h.pass(1)
	reply := packet.AppendSolicitation(nil, packet.Solicitation{
		MAC: mac("02:00:00:00:00:99"), Source: netip.MustParseAddr("192.0.2.7"), Target: netip.MustParseAddr("192.0.2.1"),
	})
	h.pass(1)
	h.l.Input(pt.Frame(reply), h.now, h.emit)
	h.pass(2)
	h.expect("")
	h.pass(30) // the server gives the same one: somebody would have to say it again
	h.expect(lease4)
}

func TestLearnerHearsAdverts(t *testing.T) {
	c := Config{Advert: &Advert{MaxInterval: 60, DNS: []netip.Addr{netip.MustParseAddr("2001:db8::53")}, Prefixes: []Prefix{{
		Prefix: netip.MustParsePrefix("2001:db8::/64"), Autonomous: true, Valid: 7200 * 2, Preferred: 3600,
	}}}}
	h := newHub(t, c, Learn{SLAAC: true})
	h.pass(3)
	const address = "2001:db8::aa:bbff:fecc:dd01/64"
	want := address + " ::/0>" + gatewayLocal + " dns=2001:db8::53"
	h.expect(want)
	h.pass(600)
	h.expect(want)
	if h.changes > 12 {
		t.Errorf("told %d times of ten minutes of adverts", h.changes)
	}
	h.deaf = true
	h.pass(200) // three times the interval
	h.expect(address)
	h.deaf = false
	h.pass(130)
	h.expect(want)
	b := h.s.Final(nil)
	h.waiting(b)
	h.deliver()
	h.deaf = true
	h.pass(1)
	h.expect(address)
	h.pass(5 * 3600)
	h.expect("")
}

// TestLearnerWantsRouters: what does not come from a router of the link is not heard.
func TestLearnerWantsRouters(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"hop limit": func(b []byte) { b[21] = 64 },
		"source":    func(b []byte) { b[22] = 0x20 },
		"sum":       func(b []byte) { b[56] ^= 1 },
		"code":      func(b []byte) { b[55] = 1 },
		"option":    func(b []byte) { b[14+40+16+1] = 0 },
	} {
		h := newHub(t, Config{Advert: &Advert{}}, Learn{SLAAC: true})
		b := h.s.Tick(nil, 1)
		change(b)
		h.l.Input(pt.Frame(b), h.now, h.emit)
		if h.has() != "" {
			t.Errorf("%s: %s", name, h.has())
		}
	}
}

func TestLearnerLeases6(t *testing.T) {
	h := newHub(t, Config{DHCP6: &DHCP6{Preferred: 100, Valid: 200, DNS: []netip.Addr{netip.MustParseAddr("2001:db8::53")}}}, Learn{DHCP6: true})
	const want = "2001:db8::7/128 dns=2001:db8::53"
	h.pass(3)
	h.expect(want)
	h.pass(1000)
	h.expect(want)
	held := h.l.Learned()
	h.l = NewLearner(9)
	h.learn(Learn{DHCP6: true, Held: &held})
	h.expect(want)
	h.pass(5)
	h.expect(want)
	h.deaf = true
	h.pass(205)
	h.expect("")
	h.deaf = false
	h.pass(125)
	h.expect(want)
}

// TestLearnerAsksNothing is one that is off.
func TestLearnerAsksNothing(t *testing.T) {
	h := newHub(t, leases(100), Learn{})
	h.pass(5)
	if len(h.sent) > 0 || h.has() != "" {
		t.Errorf("%d frames, %q", len(h.sent), h.has())
	}
	h.learn(Learn{DHCP: true})
	h.pass(3)
	h.expect(lease4)
	h.learn(Learn{})
	h.pass(1)
	h.expect("")
}

// FuzzLearner feeds any frame to a Learner in the middle of everything.
func FuzzLearner(f *testing.F) {
	h := newHub(&testing.T{}, leases(100), Learn{DHCP: true, SLAAC: true, DHCP6: true})
	f.Add(h.s.Tick(nil, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return
		}
		h := newHub(t, Config{DHCP4: &DHCP4{}, DHCP6: &DHCP6{}, Advert: &Advert{}}, Learn{DHCP: true, SLAAC: true, DHCP6: true})
		h.pass(2)
		x := pt.Frame(b)
		if x.View.Parse(x.Bytes()) != packet.FaultNone {
			return
		}
		h.l.Input(x, h.now, h.emit)
		h.pass(3)
		is := h.l.Learned()
		if len(is.Routers) > maxRouters || len(is.Prefixes) > maxPrefixes || len(is.DNS) > maxDNS || len(is.Routes) > maxLearnedRoutes {
			t.Errorf("unbounded: %+v", is)
		}
	})
}
