// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/policytest"
	kt "sluice/test/kerneltest"
)

// kernel is the oracle: a network namespace that routes between m0 and m1, with nft,
// and another one that has their far ends. What is sent into one of them has come out
// again, or not at all, when the call returns.
type kernel struct {
	t    *testing.T
	ends [2]*kt.End
	nft  *policytest.Session

	frame *packet.Frame
	macs  [2]packet.MAC
	far   [2]packet.MAC
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	far := kt.NewNS(t)
	kt.Enter(t, "nft")
	kt.OneCPU(t)
	kt.Forward(t)
	kt.Sysctl(t, "ipv4/conf/all/send_redirects=0", "ipv4/conf/default/send_redirects=0",
		"ipv6/conf/default/addr_gen_mode=1", "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
		"ipv4/icmp_ratelimit=0", "ipv6/icmp/ratelimit=0", "ipv4/icmp_msgs_per_sec=100000", "ipv4/icmp_msgs_burst=100000")
	kt.IP(t, "link set lo up")
	k := &kernel{t: t, frame: pt.NewFrame()}
	for i := range k.ends {
		k.device(i, far)
	}
	k.nft = policytest.NewSession(t)
	k.settle()
	return k
}

// settle waits until the namespace has said what it says of itself, about the groups
// that it is in: rules of postrouting would count it.
func (k *kernel) settle() {
	k.t.Helper()
	defer k.nft.Do("flush ruleset")
	k.nft.Do("table ip6 t { chain c { type filter hook postrouting priority 0; counter; }; }")
	was := ""
	for range 20 {
		time.Sleep(1200 * time.Millisecond)
		is := k.nft.Do("list ruleset")
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

// device makes m0 or m1 with its addresses and neighbours.
func (k *kernel) device(i int, far netns.NsHandle) {
	k.t.Helper()
	name := fmt.Sprintf("m%d", i)
	k.macs[i] = packet.MAC{2, 0, 0, 0, byte(i), 1}
	k.far[i] = packet.MAC{2, 0, 0, 0, byte(i), 2}
	kt.IP(k.t, fmt.Sprintf("link add %s index %d address %v type veth peer name %sx", name, 10+i, k.macs[i], name))
	k.ends[i] = kt.OpenIn(k.t, far, name+"x")
	lines := []string{
		fmt.Sprintf("link set %s up", name),
		fmt.Sprintf("addr add 10.0.%d.1/24 dev %s", i, name), fmt.Sprintf("addr add fd00:%d::1/64 dev %s nodad", i, name),
	}
	for a := 2; a < 2+hosts; a++ {
		lines = append(lines,
			fmt.Sprintf("neigh add 10.0.%d.%d lladdr %v dev %s nud permanent", i, a, k.far[i], name),
			fmt.Sprintf("neigh add fd00:%d::%x lladdr %v dev %s nud permanent", i, a, k.far[i], name))
	}
	kt.IP(k.t, lines...)
}

// pass sends a frame into the far end of a device, and says what came out.
func (k *kernel) pass(b []byte, in int) outcome {
	k.t.Helper()
	sent := bytes.Clone(b)
	copy(sent, k.macs[in][:])
	copy(sent[6:], k.far[in][:])
	k.ends[in].Send(sent)
	o := outcome{what: "drop"}
	g := k.frame
	for side, end := range k.ends {
		for _, got := range end.Heard() {
			g.Reset(packet.Headroom, len(got))
			copy(g.Bytes(), got)
			if g.View.Parse(g.Bytes()) != packet.FaultNone || !g.View.Is(packet.ViewIP) || g.DstMAC() != k.far[side] {
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

// refusal is what the sender of a packet was told.
func refusal(g *packet.Frame) string {
	if g.View.Proto == packet.ProtoTCP {
		return resetSent
	}
	return fmt.Sprintf("reject %d %d/%d", policy.RejectICMP, g.View.SrcPort>>8, g.View.SrcPort&0xff)
}
