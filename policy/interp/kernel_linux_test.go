// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/nft"
)

// kernel is the oracle: a network namespace that routes between m0 and m1, with nft,
// and another one that has their far ends, each with a packet socket. What is sent
// into one of them has come out again, or not at all, when the call returns.
//
// Neither namespace has a name; they belong to the thread of the test's goroutine
// and are gone with it.
type kernel struct {
	t    *testing.T
	near int
	ends [2]int // packet sockets
	macs [2]packet.MAC
	far  [2]packet.MAC
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine. A subtest would be in another one
	var one unix.CPUSet    // what two have in their queues changes places
	var all unix.CPUSet
	k := &kernel{t: t}
	k.must(unix.SchedGetaffinity(0, &all))
	for i := range 1024 {
		if all.IsSet(i) {
			one.Set(i)
			break
		}
	}
	k.must(unix.SchedSetaffinity(0, &one))
	far := k.namespace()
	k.near = k.namespace()
	for _, s := range []string{
		"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/forwarding=1",
		"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0", "ipv4/conf/all/send_redirects=0", "ipv4/conf/default/send_redirects=0",
		"ipv6/conf/default/addr_gen_mode=1", "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
		"ipv4/icmp_ratelimit=0", "ipv6/icmp/ratelimit=0", "ipv4/icmp_msgs_per_sec=100000", "ipv4/icmp_msgs_burst=100000",
	} {
		name, value, _ := strings.Cut(s, "=")
		k.must(os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
	k.run("link set lo up", "ip", "-batch", "-")
	for i := range k.ends {
		k.device(i, far)
	}
	k.settle()
	return k
}

// settle waits until the namespace has said what it says of itself, about the groups
// that it is in: rules of postrouting would count it.
func (k *kernel) settle() {
	k.t.Helper()
	defer k.run("flush ruleset", "nft", "-f", "-")
	k.run("table ip6 t { chain c { type filter hook postrouting priority 0; counter; }; }", "nft", "-f", "-")
	was := ""
	for range 20 {
		time.Sleep(1200 * time.Millisecond)
		is := k.run("", "nft", "list", "ruleset")
		if is == was {
			return
		}
		was = is
	}
	k.t.Fatal("the namespace doesn't come to rest")
}

func (k *kernel) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// namespace moves the thread into a new namespace and returns it.
func (k *kernel) namespace() int {
	k.t.Helper()
	k.must(unix.Unshare(unix.CLONE_NEWNET))
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	k.must(err)
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (k *kernel) run(input string, words ...string) string {
	k.t.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		k.t.Fatalf("%v: %v: %s\n%s", words, err, bad.String(), input)
	}
	return out.String()
}

// device makes m0 or m1 with its addresses and neighbours.
func (k *kernel) device(i, far int) {
	k.t.Helper()
	name := fmt.Sprintf("m%d", i)
	k.macs[i] = packet.MAC{2, 0, 0, 0, byte(i), 1}
	k.far[i] = packet.MAC{2, 0, 0, 0, byte(i), 2}
	k.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, Index: 10 + i, HardwareAddr: net.HardwareAddr(k.macs[i][:])}, PeerName: name + "x",
	}))
	peer, err := netlink.LinkByName(name + "x")
	k.must(err)
	k.must(netlink.LinkSetNsFd(peer, far))
	k.must(unix.Setns(far, unix.CLONE_NEWNET))
	k.must(os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"x/disable_ipv6", []byte("1"), 0))
	peer, err = netlink.LinkByName(name + "x")
	k.must(err)
	k.must(errors.Join(netlink.LinkSetARPOff(peer), netlink.LinkSetUp(peer)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 3<<8)
	k.must(err)
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	k.must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 3 << 8, Ifindex: peer.Attrs().Index}))
	k.must(unix.SetsockoptInt(fd, unix.SOL_PACKET, 23, 1)) // PACKET_IGNORE_OUTGOING
	k.ends[i] = fd
	k.must(unix.Setns(k.near, unix.CLONE_NEWNET))
	var lines strings.Builder
	fmt.Fprintf(&lines, "link set %s up\naddr add 10.0.%d.1/24 dev %s\naddr add fd00:%d::1/64 dev %s nodad\n", name, i, name, i, name)
	for a := 2; a < 8; a++ {
		fmt.Fprintf(&lines, "neigh add 10.0.%d.%d lladdr %v dev %s nud permanent\n", i, a, k.far[i], name)
		fmt.Fprintf(&lines, "neigh add fd00:%d::%d lladdr %v dev %s nud permanent\n", i, a, k.far[i], name)
	}
	k.run(lines.String(), "ip", "-batch", "-")
}

// pass sends a frame into the far end of a device, and says what came out.
func (k *kernel) pass(b []byte, in int) outcome {
	k.t.Helper()
	f := pt.Frame(b)
	f.SetMACs(k.macs[in], k.far[in])
	if _, err := unix.Write(k.ends[in], f.Bytes()); err != nil {
		k.t.Fatal(err)
	}
	o := outcome{what: "drop"}
	for side := range k.ends {
		for _, got := range k.receive(side) {
			g := pt.Frame(got)
			if !g.View.Is(packet.ViewIP) || g.DstMAC() != k.far[side] {
				continue // what the kernel says of itself
			}
			if side != in {
				o = outcome{what: "forward", out: bytes.Clone(g.Bytes()[g.View.L3:g.View.End])}
				continue
			}
			o.what = refusal(g)
		}
	}
	return o
}

func (k *kernel) receive(side int) (frames [][]byte) {
	k.t.Helper()
	for {
		b := make([]byte, 2048)
		n, err := unix.Read(k.ends[side], b)
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		k.must(err)
		frames = append(frames, b[:n])
	}
}

// refusal is what the sender of a packet was told.
func refusal(g *packet.Frame) string {
	if g.View.Proto == packet.ProtoTCP {
		return fmt.Sprintf("reject %d 0/0", policy.RejectTCP)
	}
	return fmt.Sprintf("reject %d %d/%d", policy.RejectICMP, g.View.SrcPort>>8, g.View.SrcPort&0xff)
}

// canonical is an outcome as both sides can tell it.
func canonical(o outcome, sent []byte) outcome {
	if o.what == "reject 2 0/0" && mute(sent) {
		o.what = "drop" // nobody answers a reset
	}
	return outcome{what: o.what, out: o.out}
}

// mute reports whether a packet is a TCP reset.
func mute(b []byte) bool {
	f := pt.Frame(b)
	return f.View.Proto == packet.ProtoTCP && f.Bytes()[f.View.L4+13]&pt.RST != 0
}

func TestEngineIsTheKernel(t *testing.T) {
	k := newKernel(t)
	const packets = 60
	n := many(t, 10, 25)
	for i := range n {
		r := rand.New(rand.NewPCG(uint64(i), 5))
		g := &gen{r: r, family: []string{"ip", "ip6", "inet"}[r.IntN(3)], kernel: true}
		k.compare(g.ruleset(), newConversations(r, g.family, 2000+i*10%50000), packets)
	}
	t.Logf("%d rulesets, %d packets: no difference", n, n*packets)
}

// compare plays a ruleset on both.
func (k *kernel) compare(text string, c *conversations, n int) {
	k.t.Helper()
	k.run(text, "nft", "-f", "-")
	defer k.run("flush ruleset", "nft", "-f", "-")
	b := newBoth(k.t, load(k.t, text))
	for i := range n {
		frame, in := c.next()
		b.ev.Pin()
		b.ev.Begin(nil)
		got := b.ours.pass(frame, in)
		b.ev.Unpin()
		want := canonical(k.pass(frame, in), frame)
		if x := canonical(got, frame); !x.same(want) {
			k.t.Fatalf("packet %d, %s by m%d:\nengine: %v\nkernel: %v\n%s", i, pt.Describe(frame), in, got, want, k.run("", "nft", "-a", "list", "ruleset"))
		}
	}
	k.compareStates(b, text)
}

// compareStates compares counters, quotas and sets with what the kernel lists.
func (k *kernel) compareStates(b *both, text string) {
	k.t.Helper()
	listing := k.run("", "nft", "list", "ruleset")
	theirs := load(k.t, listing)
	states := b.engine.States(b.ours.now)
	bad := func(format string, args ...any) {
		k.t.Errorf(format+"\n%s\n%s", append(args, text, listing)...)
	}
	for i, table := range b.rs.Tables {
		other := theirs.Tables[i]
		for j, c := range table.Chains {
			for n, r := range c.Rules {
				sameCounts(states, r.Stmts, other.Chains[j].Rules[n].Stmts, func(what string) { bad("%s rule %d: %s", c.Name, n+1, what) })
			}
		}
		for j, o := range table.Objects {
			sameCounts(states, []nft.Stmt{o.Stmt}, []nft.Stmt{other.Objects[j].Stmt}, func(what string) { bad("%s: %s", o.Name, what) })
		}
		for j, s := range table.Sets {
			if what := sameElements(b, table, s, other.Sets[j]); what != "" {
				bad("set %s: %s", s.Name, what)
			}
		}
	}
}

// sameCounts compares the counters and quotas of two rules.
func sameCounts(states *policy.States, ours, theirs []nft.Stmt, bad func(string)) {
	var mine, his []string
	for _, s := range ours {
		v, _ := states.Of(s)
		switch s.(type) {
		case *nft.Counter:
			mine = append(mine, fmt.Sprintf("counter packets %d bytes %d", v.Packets, v.Bytes))
		case *nft.Quota:
			mine = append(mine, fmt.Sprintf("quota used %d", v.Bytes))
		}
	}
	for _, s := range theirs {
		switch s := s.(type) {
		case *nft.Counter:
			his = append(his, fmt.Sprintf("counter packets %d bytes %d", s.Packets, s.Bytes))
		case *nft.Quota:
			his = append(his, fmt.Sprintf("quota used %d", s.Used))
		}
	}
	if x, y := strings.Join(mine, "; "), strings.Join(his, "; "); x != y {
		bad(fmt.Sprintf("engine has %s; kernel %s", x, y))
	}
}

// sameElements compares a set, with the counters of its elements.
func sameElements(b *both, table *nft.Table, s, theirs *nft.Set) string {
	n := 0
	for e := range b.engine.Elements(table.Handle, s.Name, b.ours.now) {
		if e.Default {
			continue
		}
		n++
		x := theirs.Elems.Find(e.Key)
		if x == nil {
			return fmt.Sprintf("the kernel's has no %x", e.Key)
		}
		for i, st := range x.Stmts {
			c, counts := st.(*nft.Counter)
			if counts && i < len(e.States) && (c.Packets != e.States[i].Packets || c.Bytes != e.States[i].Bytes) {
				return fmt.Sprintf("element %x: engine %v, kernel %v", e.Key, e.States[i], *c)
			}
		}
	}
	if m := theirs.Elems.Len(); m != n {
		return fmt.Sprintf("%d elements, the kernel's has %d", n, m)
	}
	return ""
}
