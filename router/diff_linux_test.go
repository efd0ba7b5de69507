// SPDX-License-Identifier: Apache-2.0

package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/neigh"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	kt "sluice/test/kerneltest"
	"sluice/trace"
)

// longEnv, set to anything, makes the comparisons with the kernel long.
const longEnv = "SLUICE_LONG"

func scale(short, long int) int {
	if os.Getenv(longEnv) != "" {
		return long
	}
	return short
}

// rivals are the kernel and a Router, which are configured alike and get the same
// packets.
type rivals struct {
	*rand.Rand
	t    *testing.T
	k    *kernel
	r    *Router
	set  *routing.Set
	devs []Device
	ours *recorder

	prefixes []netip.Prefix
	fresh    uint32 // counts up addresses that nobody has used yet
}

// world is a router with three devices, gateways on each, and random settings.
func world(r *rand.Rand) []Device {
	var devs []Device
	mtus := r.Perm(3)
	for n := range 3 {
		d := Device{Name: fmt.Sprintf("slt-r%d", n), Index: uint16(10 + n), MAC: packet.MAC{2, 0, 0, 0, 1, byte(n)}, MTU: []int{9000, 1500, 1400}[mtus[n]]}
		for _, p := range []string{"10.64.%d.1/20", "10.64.%d.99/20", "10.65.%d.1/24", "fd64:%d::1/64", "fd65:%d::1/48"} {
			d.Addrs = append(d.Addrs, netip.MustParsePrefix(fmt.Sprintf(p, 16*n)))
		}
		d.Addrs = append(d.Addrs, netip.MustParsePrefix(fmt.Sprintf("fe80::%d/64", 16*n+1)))
		d.ReversePath = routing.ReverseMode(r.IntN(3))
		d.NoForward = r.IntN(8) == 0
		devs = append(devs, d)
	}
	return devs
}

// gateways are those on a device.
func gateways(n int) (all []netip.Addr) {
	for host := 2; host < 6; host++ {
		for _, p := range []string{"10.64.%d.%d", "fd64:%d::%d", "fe80::%d%d"} {
			all = append(all, netip.MustParseAddr(fmt.Sprintf(p, 16*n, host)))
		}
	}
	return all
}

func newRivals(t *testing.T, seed uint64) *rivals {
	t.Helper()
	v := &rivals{Rand: rand.New(rand.NewPCG(seed, 7)), t: t}
	v.devs = world(v.Rand)
	if v.IntN(3) == 0 { // send_redirects is on if one of `all` and the device's says so
		for i := range v.devs {
			v.devs[i].NoRedirects = true
		}
	}
	v.k = newKernel(t, v.devs)
	kt.Sysctl(t, "ipv4/icmp_ratelimit=0", "ipv4/icmp_msgs_per_sec=1000000", "ipv4/icmp_msgs_burst=1000000", "ipv6/icmp/ratelimit=0")
	var static []neigh.Static
	for n := range v.devs {
		kt.IP(v.t, "link set "+v.devs[n].Name+" arp off")
		for i, a := range gateways(n) {
			mac := packet.MAC{2, 0, 0, 0xf0, byte(n), byte(i)}
			static = append(static, neigh.Static{Device: v.devs[n].Index, Addr: a, MAC: mac})
			kt.IP(v.t, fmt.Sprintf("neigh add %v lladdr %v dev %s nud permanent", a, mac, v.devs[n].Name))
		}
	}
	set, err := BuildSet(&Spec{Devices: v.devs})
	if err != nil {
		t.Fatal(err)
	}
	if diff := settled(v.k, shown(set)); diff != "" {
		t.Fatalf("routes (-kernel +ours):\n%s", diff)
	}
	v.set = set
	v.configure(static)
	return v
}

// configure gives both the same random routes and rules.
func (v *rivals) configure(static []neigh.Static) {
	v.t.Helper()
	for range 60 {
		v.both(v.route())
	}
	for n := range v.IntN(6) {
		v.both(v.rule(100 + n))
	}
	v.r = New(Limits{Neigh: neigh.Limits{Entries: 1 << 16, UnresolvedPerPort: 1 << 16}})
	v.r.Prepare(&Config{Devices: v.devs, Set: v.set, Neighbours: static, ICMP: ICMPLimits{Off: true}}).Commit()
	v.ours = &recorder{r: v.r}
}

// both gives a line to both, which must take it or refuse it both.
func (v *rivals) both(line string) {
	v.t.Helper()
	theirs := v.k.try(line)
	c, err := (*routing.Names)(nil).Parse(line)
	if err != nil {
		v.t.Fatal(line, err)
	}
	set, err := v.set.Apply([]routing.Change{c})
	if (err == nil) != theirs {
		v.t.Fatalf("%s: the kernel takes it: %v, the set: %v", line, theirs, err)
	}
	if err == nil {
		v.set = set
	}
}

func (v *rivals) v6() bool { return v.IntN(2) == 0 }

func (v *rivals) prefix(v6 bool) netip.Prefix {
	pick := func() byte { return []byte{0, 1, 64, 128}[v.IntN(4)] }
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + pick()&1, pick(), pick(), pick()}), 6+v.IntN(27))
	if v6 {
		p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, pick(), pick(), pick(), 15: pick()}), 28+v.IntN(40))
	}
	p = p.Masked()
	v.prefixes = append(v.prefixes, p)
	return p
}

// known is a prefix that there was before.
func (v *rivals) known(v6 bool) netip.Prefix {
	for range 20 {
		if len(v.prefixes) > 0 {
			if p := v.prefixes[v.IntN(len(v.prefixes))]; p.Addr().Is6() == v6 {
				return p
			}
		}
	}
	return v.prefix(v6)
}

// inside is a random address of a prefix.
func (v *rivals) inside(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		keep := min(8, max(0, p.Bits()-8*i))
		mask := byte(0xff) << (8 - keep)
		b[i] = b[i]&mask | byte(v.IntN(256))&^mask
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (v *rivals) route() string {
	v6 := v.v6()
	p, n := v.prefix(v6), v.IntN(3)
	host := 2 + v.IntN(4)
	via, ll := fmt.Sprintf("10.64.%d.%d", 16*n, host), ""
	if v6 {
		via, ll = fmt.Sprintf("fd64:%d::%d", 16*n, host), fmt.Sprintf("fe80::%d%d dev slt-r%d", 16*n, host, n)
	}
	way := fmt.Sprintf("%v via %s", p, via)
	switch v.IntN(16) {
	case 0:
		way = "blackhole " + p.String()
	case 1:
		way = "unreachable " + p.String()
	case 2:
		way = "prohibit " + p.String()
	case 3:
		way = "throw " + p.String()
	case 4, 5:
		way = fmt.Sprintf("%v dev slt-r%d", p, n)
	case 6:
		if v6 {
			way = fmt.Sprintf("%v via %s", p, ll)
		}
	case 7:
		way += fmt.Sprintf(" mtu lock %d", []int{1280, 1300, 1000}[v.IntN(3-b2i(v6))])
	case 8:
		way += " src " + v.own(v6).String()
	case 9:
		way = "local " + p.String() + " dev lo"
	}
	return "route add " + way + " table " + []string{"main", "main", "100", "101"}[v.IntN(4)]
}

// own is an address of the router's.
func (v *rivals) own(v6 bool) netip.Addr {
	for {
		d := &v.devs[v.IntN(3)]
		if a := d.Addrs[v.IntN(len(d.Addrs))].Addr(); a.Is6() == v6 && !a.IsLinkLocalUnicast() {
			return a
		}
	}
}

func (v *rivals) rule(priority int) string {
	v6 := v.v6()
	l := fmt.Sprintf("-4 rule add pref %d", priority)
	if v6 {
		l = fmt.Sprintf("-6 rule add pref %d", priority)
	}
	switch v.IntN(3) {
	case 0:
		l += fmt.Sprintf(" from %v", v.known(v6))
	case 1:
		l += fmt.Sprintf(" to %v", v.known(v6))
	default:
		l += " from all"
	}
	l += []string{"", "", " iif slt-r1", " iif slt-r2", " iif lo", " ipproto udp dport 53", " tos 0x10"}[v.IntN(7)]
	return l + []string{" lookup 100", " lookup 101", " lookup main suppress_prefixlength 12", " blackhole", " unreachable", " prohibit"}[v.IntN(6)]
}

// neighbour is an address on a device's link that nobody had before.
func (v *rivals) neighbour(n int, v6 bool) netip.Addr {
	v.fresh++
	if v6 {
		return netip.AddrFrom16([16]byte{0xfd, 0x64, 0, hexDigits(16 * n), 12: 1, 13: byte(v.fresh >> 16), 14: byte(v.fresh >> 8), 15: byte(v.fresh)})
	}
	host := v.fresh % 3500
	return netip.AddrFrom4([4]byte{10, 64, byte(16*n) + 1 + byte(host>>8), byte(host)})
}

// hexDigits is a number below 100 whose decimal digits are read as hexadecimal, as
// the format of an address does.
func hexDigits(n int) byte { return byte(n/10<<4 | n%10) }

func (v *rivals) source(n int, v6 bool) netip.Addr {
	switch k := v.IntN(20); {
	case k < 12:
		return v.neighbour(n, v6)
	case k < 14:
		return v.neighbour(v.IntN(3), v6)
	case k < 17: // in a large prefix: to whom no route leads, Linux always limits errors
		if p := v.known(v6); p.Bits() < 20 || v6 && p.Bits() < 100 {
			return v.inside(p)
		}
		return v.neighbour(n, v6)
	case k == 17:
		return v.own(v6)
	case v6:
		v.fresh++
		return netip.MustParseAddr([]string{fmt.Sprintf("fe80::77:%x", v.fresh), "::1", "ff02::5", "::", fmt.Sprintf("2001:db8:ffff::%x", v.fresh&0xffff)}[v.IntN(5)])
	}
	return netip.MustParseAddr([]string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.1.1.1", "9.9.9.9"}[v.IntN(6)])
}

func (v *rivals) destination(n int, v6 bool) netip.Addr {
	switch k := v.IntN(20); {
	case k < 10:
		return v.inside(v.known(v6))
	case k < 13:
		return v.neighbour(v.IntN(3), v6)
	case k < 15:
		return v.own(v6)
	case k == 15 && !v6:
		return netip.AddrFrom4([4]byte{10, 64, byte(16 * v.IntN(3)), byte(2 + v.IntN(4))})
	case k == 16 && v6:
		v.fresh++ // Linux limits redirects by destination too, always
		return netip.MustParseAddr([]string{fmt.Sprintf("fe80::%d", 16*n+1), fmt.Sprintf("fe80::99:%x", v.fresh), "fd64::", "::1"}[v.IntN(4)])
	case k == 16:
		return netip.MustParseAddr([]string{"10.64.15.255", "10.65.16.255", "10.64.16.0", "255.255.255.255", "127.0.0.1"}[v.IntN(5)])
	case v6:
		v.fresh++
		return netip.MustParseAddr(fmt.Sprintf("2001:db9::%x", v.fresh&0xffff))
	}
	return netip.MustParseAddr("8.8.8.8")
}

// options are those of IPv4 that a router looks at, some of them wrong.
func (v *rivals) options() []byte {
	return [][]byte{
		{148, 4, 0, 0},
		{148, 3, 0},
		{131, 7, 4, 10, 9, 9, 9},
		{131, 7, 3, 10, 9, 9, 9},
		{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0},
		{1, 7, 11, 8, 1, 2, 3, 4, 0, 0, 0, 0},
		{7, 11, 12, 1, 2, 3, 4, 1, 2, 3, 4},
		{7, 11, 10, 1, 2, 3, 4, 1, 2, 3, 4},
		{1, 1, 7, 40},
		{68, 12, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0},
		{68, 4, 5, 0xf0},
		{68, 4, 3, 0},
		{99, 4, 1, 1},
		{99, 1},
	}[v.IntN(14)]
}

// frame is a random packet that comes in by a device.
func (v *rivals) frame(n int) []byte {
	v6 := v.v6()
	src, dst := v.source(n, v6), v.destination(n, v6)
	ttl := []uint8{1, 2, 64, 64, 64}[v.IntN(5)]
	tos := []uint8{0, 0, 0x10, 0x12, 0xb8}[v.IntN(5)]
	mtu := v.devs[n].MTU
	size := min(mtu, []int{64, 64, 200, 1000, 1001, 1280, 1281, 1300, 1301, 1400, 1401, 1500, 1501, 3000, 9000}[v.IntN(15)])
	layers := []pt.Layer{pt.EtherHdr{Src: answering(v.devs[n].Index), Dst: v.devs[n].MAC}}
	l3 := packet.IPv4MinLen
	if v6 {
		l3 = packet.IPv6Len
		layers = append(layers, pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: ttl, TrafficClass: tos})
	} else {
		h := pt.IPv4Hdr{Src: src, Dst: dst, TTL: ttl, TOS: tos, ID: uint16(v.fresh), DF: v.IntN(2) == 0}
		if v.IntN(8) == 0 {
			h.Options = v.options()
			l3 += (len(h.Options) + 3) &^ 3
		}
		layers = append(layers, h)
	}
	switch v.IntN(8) {
	case 0:
		layers = append(layers, pt.TCPHdr{Flags: pt.SYN}, pt.Bytes(size-l3-packet.TCPMinLen))
	case 1: // echo request, destination unreachable, echo reply
		kind := []uint8{8, 3, 0}[v.IntN(3)]
		if v6 {
			kind = []uint8{128, 1, 129}[v.IntN(3)]
		}
		layers = append(layers, pt.ICMPHdr{V6: v6, Type: kind, ID: 7}, pt.Bytes(size-l3-packet.ICMPLen))
	default:
		layers = append(layers, pt.UDPHdr{SrcPort: 1000, DstPort: []uint16{53, 80}[v.IntN(2)]}, pt.Bytes(size-l3-packet.UDPLen))
	}
	return pt.Build(layers...)
}

// delivered is how many packets the kernel has given to its own protocols.
func (k *kernel) delivered() (n int) {
	k.t.Helper()
	for file, prefix := range map[string]string{"snmp": "Ip: ", "snmp6": "Ip6InDelivers"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			k.t.Fatal(err)
		}
		var names []string
		for l := range strings.Lines(string(text)) {
			f := strings.Fields(l)
			switch {
			case !strings.HasPrefix(l, prefix):
			case file == "snmp6":
				d, _ := strconv.Atoi(f[1])
				n += d
			case names == nil:
				names = f
			default:
				d, _ := strconv.Atoi(f[slices.Index(names, "InDelivers")])
				n += d
			}
		}
	}
	return n
}

// theirs is what the kernel does with a frame.
func (v *rivals) theirs(n int, b []byte) (deliver bool, events []string) {
	before := v.k.delivered()
	v.k.send(n, b)
	for i := range v.devs {
		for _, f := range v.k.ends[i].Heard() {
			p := pt.Frame(f)
			if p.View.Proto == packet.ProtoICMPv6 && p.DstMAC().IsMulticast() {
				continue // its own multicast listener reports and solicitations
			}
			events = append(events, event(v.devs[i].Index, f, v.devs[i].MAC))
		}
	}
	if deliver = v.k.delivered() > before; deliver {
		return true, nil // what its protocols answer is not the router's
	}
	slices.Sort(events)
	return false, v.unasked(n, events)
}

// mine is what the Router does with it.
func (v *rivals) mine(n int, b []byte) (verdict Verdict, events []string) {
	f := pt.Frame(slices.Clone(b))
	f.InPort = uint16(100 + n)
	v.ours.events = nil
	verdict = v.r.Input(&Packet{Frame: f, Device: v.devs[n].Index, Port: f.InPort, Now: 1}, v.ours)
	if !slices.Equal(b, f.Bytes()) {
		v.t.Fatal("the frame was changed")
	}
	v.ours.answer()
	if verdict.Action == Forward {
		rewrite(f, &verdict)
		v.ours.Emit(verdict.Device, f.Vnet, f.Label, f.Bytes())
	}
	events = slices.Clone(v.ours.events)
	slices.Sort(events)
	v.r.Neigh().Flush(0, netip.Addr{})
	return verdict, events
}

// onPurpose are the differences that the package comment states, and what a group
// that nobody has joined gets.
func (v *rivals) onPurpose(b []byte, verdict *Verdict) bool {
	f := pt.Frame(b)
	// An error to an own address is delivered, as far as the kernel counts.
	if verdict.Action != Deliver && v.r.state.Load().isOwn(f.View.SrcAddr(b), nil) {
		return true
	}
	return f.View.Is(packet.ViewIPv6) && (f.View.SrcAddr(b).IsUnspecified() && verdict.Reason == trace.MartianSource || verdict.Reason == trace.NoForward || verdict.Reason == trace.ReversePath)
}

// noErrors takes ICMP errors away: the kernel's have options when the packet has,
// and there are none from an address that only a route of another table makes local.
func noErrors(events []string, dst netip.Addr) []string {
	return slices.DeleteFunc(events, func(e string) bool {
		return strings.Contains(e, "icmp type 12 ") && strings.Contains(e, fmt.Sprintf("ipv4 %v > ", dst)) || strings.Contains(e, "icmp type 3 ") || strings.Contains(e, "icmp type 5 ") || strings.Contains(e, "icmp type 11 ")
	})
}

// unasked takes away the kernel's redirects of IPv6 that no sysctl turns off, and
// those to a link that the redirected packet did not come from.
func (v *rivals) unasked(n int, events []string) []string {
	from := fmt.Sprintf("dev %d ", v.devs[n].Index)
	return slices.DeleteFunc(events, func(e string) bool {
		return strings.Contains(e, "type 137") && (v.devs[n].NoRedirects || !strings.HasPrefix(e, from))
	})
}

// Random packets through random routes, rules and settings come out of the Router
// as they come out of the kernel: the same bytes, at the same device, for the same
// next hop; and the same ICMP errors.
func TestSameAsTheKernel(t *testing.T) {
	kinds := map[string]int{}
	for seed := range uint64(scale(4, 60)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			v := newRivals(t, seed)
			for range scale(600, 3000) {
				n := v.IntN(3)
				b := v.frame(n)
				deliver, want := v.theirs(n, b)
				verdict, got := v.mine(n, b)
				kinds[verdict.Action.String()+" "+verdict.Reason.String()]++
				if v.onPurpose(b, &verdict) {
					continue
				}
				if f := pt.Frame(b); f.View.Is(packet.ViewIPOptions) {
					dst := f.View.DstAddr(b)
					want, got = noErrors(want, dst), noErrors(got, dst)
				}
				if deliver != (verdict.Action == Deliver) || !slices.Equal(want, got) {
					rules, _ := exec.Command("sh", "-c", "ip rule; ip -6 rule; ip route show table all | grep -v 'proto kernel'; ip -6 route show table all | grep -v 'proto kernel'").Output()
					t.Fatalf("by %+v: %s\nkernel delivers: %v; router: %v %v\n(-kernel +router) %s\n%s", v.devs[n], pt.Describe(b), deliver, verdict.Action, verdict.Reason, cmp.Diff(want, got), rules)
				}
			}
		})
	}
	t.Log(kinds)
}
