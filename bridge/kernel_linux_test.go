// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"sluice/packet"
	kt "sluice/test/kerneltest"
)

// kernelBridge is the kernel's own bridge in a network namespace of its own:
//
//	slt-p1 ---- slt-b1 \
//	slt-p2 ---- slt-b2  \ slt-br (local port)
//	slt-p3 ---- slt-b3  /
//	slt-p4 ---- slt-b4 /
//
// with a packet socket on each slt-p and on slt-br.
type kernelBridge struct {
	t    *testing.T
	ends map[uint16]*kt.End // by port
}

// kernelPorts is the number of ports besides the local one.
const kernelPorts = 4

func newKernelBridge(t *testing.T) *kernelBridge {
	t.Helper()
	kt.Enter(t)
	kt.OneCPU(t) // all frames stay in the order in which they were sent
	kt.Sysctl(t, "ipv6/conf/default/disable_ipv6=1")
	kt.IP(t, fmt.Sprintf("link add slt-br address %v type bridge stp_state 0 mcast_snooping 0 no_linklocal_learn 1 ageing_time 100000", ownMAC),
		"link set slt-br arp off up")
	k := &kernelBridge{t: t, ends: map[uint16]*kt.End{localPort: kt.Open(t, "slt-br")}}
	for port := uint16(1); port <= kernelPorts; port++ {
		k.addPort(port)
	}
	return k
}

func (k *kernelBridge) addPort(port uint16) {
	k.t.Helper()
	inner, outer := fmt.Sprintf("slt-b%d", port), fmt.Sprintf("slt-p%d", port)
	kt.IP(k.t, "link add "+inner+" type veth peer name "+outer, "link set "+outer+" arp off up",
		"link set "+inner+" arp off master slt-br up")
	k.ends[port] = kt.Open(k.t, outer)
	k.await(inner)
}

// await waits until a port forwards: the kernel notices in its own time that the
// peer of a veth is up.
func (k *kernelBridge) await(inner string) {
	k.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		var links []struct{ State string }
		if err := json.Unmarshal([]byte(kt.Run(k.t, "bridge", "-json", "link", "show", "dev", inner)), &links); err != nil {
			k.t.Fatal(err)
		}
		if len(links) == 1 && links[0].State == "forwarding" {
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("%s does not forward: %+v", inner, links)
		}
		time.Sleep(time.Millisecond)
	}
}

// outputs counts, for each frame by its number, how often each port got it.
type outputs map[uint64]map[uint16]int

func (o outputs) add(frame uint64, port uint16) {
	if o[frame] == nil {
		o[frame] = map[uint16]int{}
	}
	o[frame][port]++
}

// collect reads what the port got, up to the frame with the number last, which
// is a broadcast that was sent after all others.
func (k *kernelBridge) collect(port uint16, last uint64, got outputs) {
	k.t.Helper()
	for {
		b := k.ends[port].Receive(5 * time.Second)
		if b == nil {
			k.t.Fatalf("port %d: last frame did not come", port)
		}
		number, ok := frameNumber(b)
		if ok && number == last {
			return
		}
		if ok && number < firstBarrier {
			got.add(number, port)
		}
	}
}

// frameNumber is the payload of one of our frames.
func frameNumber(b []byte) (uint64, bool) {
	var v packet.View
	if v.Parse(b) != packet.FaultNone || v.EtherType != etherTypeTest || len(b) < v.L3+8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[v.L3:]), true
}

// setStatic makes an entry that never moves: in Linux static alone is only
// spared by ageing.
func (k *kernelBridge) setStatic(e StaticEntry) {
	k.t.Helper()
	kt.Run(k.t, "bridge", "fdb", "add", e.MAC.String(), "dev", fmt.Sprintf("slt-b%d", e.Port),
		"master", "static", "sticky")
}

func (k *kernelBridge) flush(port uint16) {
	k.t.Helper()
	kt.Run(k.t, "ip", "link", "set", fmt.Sprintf("slt-b%d", port), "type", "bridge_slave", "fdb_flush")
}

// learned is the dynamic part of the kernel's FDB.
func (k *kernelBridge) learned() map[string]uint16 {
	k.t.Helper()
	var all []struct {
		MAC    string
		IfName string
		State  string
	}
	if err := json.Unmarshal([]byte(kt.Run(k.t, "bridge", "-json", "fdb", "show", "br", "slt-br")), &all); err != nil {
		k.t.Fatal(err)
	}
	m := map[string]uint16{}
	for _, e := range all {
		var port uint16
		if _, err := fmt.Sscanf(e.IfName, "slt-b%d", &port); err == nil && e.State == "" {
			m[e.MAC] = port
		}
	}
	return m
}
