// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	pt "sluice/packet/packettest"
	"sluice/policy/nft"
	"sluice/policy/policytest"
)

// trial is a ruleset, and packets that begin when it is loaded.
type trial struct {
	text  string
	shots []shot
}

// play is a trial on both; it returns the first difference, and what the kernel did.
func (k *kernel) play(tr *trial) (difference string, said *verdicts) {
	k.t.Helper()
	k.must(netlink.ConntrackTableFlush(netlink.ConntrackTable))
	k.nft.Do(tr.text)
	defer k.nft.Do("flush ruleset")
	b := newBoth(k.t, load(k.t, tr.text))
	b.ours.resets = tracks(b.rs)
	said = &verdicts{}
	for i, s := range tr.shots {
		b.ev.Pin()
		b.ev.Begin(nil)
		got := canonical(b.ours.pass(s.frame, s.in), s.frame)
		b.ev.Unpin()
		want := canonical(k.pass(s.frame, s.in), s.frame)
		if !got.same(want) {
			return fmt.Sprintf("packet %d, %s by m%d:\nengine: %v\nkernel: %v", i, pt.Describe(s.frame), s.in, got, want), said
		}
		said.packets = append(said.packets, want)
	}
	said.listing = k.nft.Do("list ruleset")
	said.conns = k.connections(families(b.rs.Tables[0].Family)...)
	return b.differs(k.t, said), said
}

// families are those of which a table's rules let connections be tracked.
func families(f nft.Family) []netlink.InetFamily {
	switch f {
	case nft.FamilyIP:
		return []netlink.InetFamily{unix.AF_INET}
	case nft.FamilyIP6:
		return []netlink.InetFamily{unix.AF_INET6}
	default:
		return []netlink.InetFamily{unix.AF_INET, unix.AF_INET6}
	}
}

// connections are those that the kernel knows.
func (k *kernel) connections(families ...netlink.InetFamily) string {
	k.t.Helper()
	var all []string
	for _, family := range families {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		k.must(err)
		for _, f := range flows {
			state := ""
			if tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
				state = tcpState(tcp.State)
			}
			src, dst := f.Forward.SrcIP.String(), f.Forward.DstIP.String()
			all = append(all, connection(f.Forward.Protocol, src, dst, f.Forward.SrcPort, f.Forward.DstPort, state, f.Mark))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// tcpState is a state as conntrack(8) writes it.
func tcpState(n uint8) string {
	all := []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
	return all[min(int(n), len(all)-1)]
}

// random is a ruleset with packets that are aimed at it, and some that are not.
func randomTrials(seed uint64) (all []trial) {
	r := rand.New(rand.NewPCG(seed, 5))
	g := &policytest.Gen{R: r, Family: []string{"ip", "ip6", "inet"}[r.IntN(3)], Kernel: true, Counts: r.IntN(4) > 0, Long: r.IntN(12) == 0}
	text := g.Ruleset()
	a := newAimer(r, mustLoad(text))
	a.effort = 8000 // long chains take long
	for _, shots := range aimed(a, 2, 150) {
		c := newConversations(r, g.Family, 2000)
		for range 30 {
			frame, in := c.next()
			shots = append(shots, shot{frame, in})
		}
		all = append(all, trial{text, shots})
	}
	return all
}

// TestEngineIsTheKernel plays random rulesets: NFT_PACKETS says how many packets there
// are, NFT_SEED with which ruleset they begin; with NFT_EXPORT what the kernel did is
// written into that file, for tests without it.
func TestEngineIsTheKernel(t *testing.T) {
	k := newKernel(t)
	most := number(t, "NFT_PACKETS", 5000)
	first := number(t, "NFT_SEED", 0)
	began, told := time.Now(), time.Now()
	var export []byte
	packets, rulesets := 0, 0
	outcomes := map[string]int{}
	for seed := uint64(first); packets < most; seed++ {
		for _, tr := range randomTrials(seed) {
			difference, said := k.play(&tr)
			if difference != "" {
				k.shrink(seed, tr, difference)
				return
			}
			for _, o := range said.packets {
				outcomes[strings.Fields(o.what)[0]]++
			}
			packets += len(tr.shots)
			export = appendCase(export, &tr, said)
		}
		rulesets++
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			t.Logf("ruleset %d: %d packets, %.0f a second", seed, packets, float64(packets)/time.Since(began).Seconds())
		}
	}
	t.Logf("%d rulesets from %d on, %d packets %v, %.0f a second: no difference", rulesets, first, packets, outcomes, float64(packets)/time.Since(began).Seconds())
	if file := os.Getenv("NFT_EXPORT"); file != "" {
		k.must(os.WriteFile(file, packed(export), 0o644))
	}
}

func number(t *testing.T, name string, usual int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// shrink leaves out packets and rules as long as there is a difference, and reports
// what is left.
func (k *kernel) shrink(seed uint64, tr trial, difference string) {
	k.t.Helper()
	until := time.Now().Add(time.Minute)
	differs := func(x *trial) bool {
		if !loads(x.text) || time.Now().After(until) {
			return false
		}
		d, _ := k.play(x)
		if d != "" {
			difference = d
		}
		return d != ""
	}
	for n := len(tr.shots) / 2; n > 0; n /= 2 {
		for i := 0; i+n <= len(tr.shots); {
			if x := (trial{tr.text, slices.Delete(slices.Clone(tr.shots), i, i+n)}); differs(&x) {
				tr = x
			} else {
				i += n
			}
		}
	}
	lines := strings.Split(tr.text, "\n")
	for i := range slices.Backward(lines) {
		less := slices.Delete(slices.Clone(lines), i, i+1)
		if x := (trial{strings.Join(less, "\n"), tr.shots}); differs(&x) {
			tr, lines = x, less
		}
	}
	var all bytes.Buffer
	for _, s := range tr.shots {
		fmt.Fprintf(&all, "m%d: %s %x\n", s.in, pt.Describe(s.frame), s.frame)
	}
	k.t.Fatalf("ruleset %d (NFT_SEED=%d), what is left of it:\n%s\n%s\n%s", seed, seed, tr.text, all.String(), difference)
}

// TestRealRulesetsAreTheKernel: so the kernel does with them, and with what is aimed at
// their rules.
func TestRealRulesetsAreTheKernel(t *testing.T) {
	k := newKernel(t)
	for name, r := range realRulesets() {
		all := []trial{{text: r.text}}
		for _, s := range r.steps {
			all[0].shots = append(all[0].shots, s.shot())
		}
		for _, shots := range aimed(newAimer(rand.New(rand.NewPCG(3, 4)), load(t, r.text)), 3, 150) {
			all = append(all, trial{r.text, shots})
		}
		for _, tr := range all {
			if difference, _ := k.play(&tr); difference != "" {
				t.Errorf("%s: %s", name, difference)
			}
		}
	}
}
