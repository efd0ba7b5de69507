// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/qdisc"
	kt "sluice/test/kerneltest"
)

// gate is above the disciplines that are compared: by it all packets have come before the
// second leaves, so that only the discipline decides about the order.
const gate = "qdisc add dev DEV root handle 1: tbf rate 120kbit burst 1600 limit 1000000"

// orders are disciplines below it.
var orders = [][]string{
	{gate, "qdisc add dev DEV parent 1:1 handle 2: pfifo limit 30"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: bfifo limit 20000"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: pfifo_fast"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: prio"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: prio bands 5 priomap 4 3 2 1 0 0 1 2 3 4 4 3 2 1 0 0", "qdisc add dev DEV parent 2:2 handle 22: pfifo limit 4"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: sfq"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: sfq quantum 3000 depth 8"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: sfq limit 40"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: fq_codel target 100s interval 1000s"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: fq_codel target 100s interval 1000s quantum 300"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: fq_codel target 100s interval 1000s limit 30 drop_batch 4"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: fq nopacing"},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: fq nopacing quantum 800 initial_quantum 800 flow_limit 9"},
	{
		gate, "qdisc add dev DEV parent 1:1 handle 2: drr",
		"class add dev DEV parent 2: classid 2:1 drr quantum 500", "class add dev DEV parent 2: classid 2:2 drr quantum 1000", "class add dev DEV parent 2: classid 2:3 drr quantum 1500",
		"filter add dev DEV parent 2: protocol ip prio 1 u32 match ip dport 1000 0xffff flowid 2:1",
		"filter add dev DEV parent 2: protocol ip prio 2 u32 match ip dport 1001 0xffff flowid 2:2",
		"filter add dev DEV parent 2: protocol ip prio 3 matchall classid 2:3",
	},
	{gate, "qdisc add dev DEV parent 1:1 handle 2: sfq depth 8 headdrop"},
}

// offered are the packets of a case: 70, of five flows, of any size and priority.
func offered(n int) []*packet.Frame {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	var out []*packet.Frame
	for i := range 70 {
		payload := make([]byte, 60+r.IntN(1400))
		if i < 2 { // after which the bucket is empty for long
			payload = make([]byte, 1450)
		}
		binary.BigEndian.PutUint16(payload, uint16(i))
		f := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.UDPHdr{SrcPort: 7, DstPort: uint16(1000 + r.IntN(5))}, pt.Payload(payload)))
		f.Priority = uint32(r.IntN(16))
		out = append(out, f)
	}
	return out
}

// numberOf is that of a packet, -1 if it is another's.
func numberOf(b []byte) int {
	if len(b) < 44 || binary.BigEndian.Uint16(b[12:]) != 0x800 || b[23] != 17 {
		return -1
	}
	return int(binary.BigEndian.Uint16(b[42:]))
}

// ordered is the order in which packets left.
type ordered struct {
	Case int
	Left []int
}

// TestRecordOrder prints what TestSameOrderAsRecorded compares with.
func TestRecordOrder(t *testing.T) {
	if os.Getenv("SLUICE_UML") == "" {
		return
	}
	for i, lines := range orders {
		text, err := json.Marshal(ordered{i, kernelOrder(t, lines, offered(i))})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("ORD %s\n", text)
	}
}

// TestSameOrderAsRecorded: packets that all wait leave in the order in which they leave a
// kernel, and the same ones are dropped.
func TestSameOrderAsRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/order.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r ordered
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		lines := orders[r.Case]
		t.Run(lines[1], func(t *testing.T) {
			if diff := cmp.Diff(r.Left, ourOrder(t, lines, offered(r.Case))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func ourOrder(t *testing.T, lines []string, frames []*packet.Frame) (left []int) {
	t.Helper()
	pool := qdisc.NewPool(qdisc.Limits{})
	tree := qdisc.NewTree(pool, 1)
	if err := tree.Apply(spec(t, lines...), 0); err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	take := func() {
		for r := tree.Dequeue(now); r != 0; r = tree.Dequeue(now) {
			left = append(left, numberOf(pool.Frame(r).Bytes()))
			tree.Done(r)
		}
		pool.Keep()
	}
	for _, f := range frames {
		f.View.Parse(f.Bytes())
		m := qdisc.MetaOf(f, 1)
		m.Priority = f.Priority
		tree.Enqueue(f, m, now)
		take()
		now += 1000
	}
	for now < 60e9 && tree.Len() > 0 {
		now = max(now+1, tree.NextTime(now))
		take()
	}
	return left
}

// kernelOrder sends packets into a veth with the discipline, as fast as it can.
func kernelOrder(t *testing.T, lines []string, frames []*packet.Frame) (left []int) {
	t.Helper()
	kt.Enter(t)
	kt.IP(t, "link add q0 type veth peer name q1", "link set q0 up", "link set q1 up")
	for _, line := range lines {
		kt.Run(t, append([]string{"tc"}, strings.Fields(strings.ReplaceAll(line, "DEV", "q0"))...)...)
	}
	in, out := kt.Open(t, "q0"), kt.Open(t, "q1")
	for _, f := range frames {
		in.Set(unix.SOL_SOCKET, unix.SO_PRIORITY, int(f.Priority))
		_, _ = unix.Write(in.FD, f.Bytes()) // it says so if the packet is dropped
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		b := out.Receive(2 * time.Second)
		if b == nil {
			break
		}
		if i := numberOf(b); i >= 0 {
			left = append(left, i)
		}
	}
	return left
}
