// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	kt "sluice/test/kerneltest"
)

// What the oracle tolerates: a packet leaves the kernel at most early ns before it
// leaves our discipline (the clock is read before the system call, so there is
// nothing to be early for but rounding), and half of them at most late ns after it:
// the kernel's timer fires late, and more so on a busy machine.
// Where two classes of htb may send at the same time, the one that the kernel lets
// go first may be the other one: by the time of a frame at the line's rate.
const (
	early = 20_000
	late  = 1_000_000
	swap  = 1514 * second / (10 * mbit)
)

// sent is one packet of the trace.
type sent struct {
	at   int64
	size int
	flow int
}

// The same packets, at the same times, through the kernel's discipline on a veth and
// through ours leave at the same times.
func TestBesideTheKernel(t *testing.T) {
	for _, c := range []struct {
		name  string
		slack int64
		setup []string
		spec  *Spec
	}{
		{
			"tbf", early,
			[]string{"qdisc add dev qk0 root handle 1: tbf rate 10mbit burst 5000 limit 1000000"},
			tbfSpec(10*mbit, 5000, 1_000_000),
		},
		{
			"tbf with a peak rate", early,
			[]string{"qdisc add dev qk0 root handle 1: tbf rate 10mbit burst 50000 limit 1000000 peakrate 40mbit mtu 2000"},
			&Spec{Qdiscs: []Qdisc{{Kind: "tbf", Handle: h1, Parent: Root, TBF: &TBF{
				Rate: Rate{Bytes: 10 * mbit}, Burst: 50000, Limit: 1_000_000, Peak: Rate{Bytes: 40 * mbit}, MTU: 2000,
			}}}},
		},
		{
			"htb", early + swap,
			[]string{
				"qdisc add dev qk0 root handle 1: htb",
				"class add dev qk0 parent 1: classid 1:1 htb rate 10mbit burst 15000 cburst 15000",
				"class add dev qk0 parent 1:1 classid 1:a htb rate 3mbit ceil 10mbit burst 5000 cburst 5000 quantum 1500",
				"class add dev qk0 parent 1:1 classid 1:b htb rate 7mbit ceil 10mbit burst 5000 cburst 5000 quantum 3500",
			},
			htbSpec(10*mbit,
				HTBClass{Rate: Rate{Bytes: 3 * mbit}, Ceil: Rate{Bytes: 10 * mbit}, Burst: 5000, CBurst: 5000, Quantum: 1500},
				HTBClass{Rate: Rate{Bytes: 7 * mbit}, Ceil: Rate{Bytes: 10 * mbit}, Burst: 5000, CBurst: 5000, Quantum: 3500}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKernelQdisc(t, c.setup)
			trace := k.play(300)
			compare(t, k.collect(len(trace)), ours(t, c.spec, trace), c.slack)
		})
	}
}

// ours is when the packets of the trace leave, by their numbers.
func ours(t *testing.T, spec *Spec, trace []sent) []int64 {
	t.Helper()
	s := newSim(t, spec)
	left := make([]int64, len(trace))
	s.late = func(d departure) { left[d.meta.Hash] = d.at }
	for i, p := range trace {
		s.run(p.at)
		m := Meta{Len: uint32(p.size), Wire: uint32(p.size), Segs: 1, Hash: uint32(i), Priority: uint32(h1) + 10 + uint32(p.flow)}
		s.tree.Offer(m, p.at)
	}
	s.run(s.now + 10*second)
	s.drained()
	return left
}

// compare holds the kernel's times to ours.
func compare(t *testing.T, kernel, ours []int64, slack int64) {
	t.Helper()
	var lateness []int64
	for i := range kernel {
		if kernel[i] == 0 {
			t.Fatalf("packet %d did not leave the kernel", i)
		}
		lateness = append(lateness, kernel[i]-ours[i])
	}
	slices.Sort(lateness)
	t.Logf("the kernel's times less ours: least %v, median %v, most %v", time.Duration(lateness[0]),
		time.Duration(lateness[len(lateness)/2]), time.Duration(lateness[len(lateness)-1]))
	if lateness[0] < -slack || lateness[len(lateness)/2] > late {
		t.Errorf("want at least %v, and a median of at most %v", -time.Duration(slack), time.Duration(late))
	}
}

// kernelQdisc is a veth with a discipline.
type kernelQdisc struct {
	t       *testing.T
	senders [2]*kt.End // one for each class
	out     *kt.End
}

func newKernelQdisc(t *testing.T, setup []string) *kernelQdisc {
	t.Helper()
	kt.Enter(t, "tc")
	kt.IP(t, "link add qk0 type veth peer name qk1", "link set qk0 addrgenmode none up", "link set qk1 addrgenmode none up")
	if _, err := kt.Try(strings.Join(setup, "\n")+"\n", "tc", "-batch", "-"); err != nil {
		t.Skipf("this kernel does not have it: %v", err)
	}
	k := &kernelQdisc{t: t, senders: [2]*kt.End{kt.Open(t, "qk0"), kt.Open(t, "qk0")}, out: kt.Open(t, "qk1")}
	for i, s := range k.senders {
		s.Set(unix.SOL_SOCKET, unix.SO_PRIORITY, int(h1)+10+i)
	}
	k.out.Set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	return k
}

func (k *kernelQdisc) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// play sends packets in bursts with pauses, and notes when.
func (k *kernelQdisc) play(n int) []sent {
	rng := rand.New(rand.NewPCG(11, 12))
	trace := make([]sent, 0, n)
	frame := make([]byte, 1514)
	copy(frame, []byte{2, 0x77, 0, 0, 0, 1, 2, 0x77, 0, 0, 0, 2, 0x88, 0xb5})
	for i := range n {
		p := sent{size: 64 + rng.IntN(1450), flow: rng.IntN(2)}
		if i%60 == 59 {
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
		}
		binary.BigEndian.PutUint32(frame[14:], uint32(i))
		p.at = time.Now().UnixNano()
		k.senders[p.flow].Send(frame[:p.size])
		trace = append(trace, p)
	}
	return trace
}

// collect is when the packets left, by their numbers.
func (k *kernelQdisc) collect(n int) []int64 {
	left := make([]int64, n)
	buf, oob := make([]byte, 2000), make([]byte, 200)
	for got := 0; got < n; {
		if !k.out.Wait(3 * time.Second) {
			k.t.Fatalf("%d of %d packets came", got, n)
		}
		size, oobn, _, _, err := unix.Recvmsg(k.out.FD, buf, oob, 0)
		k.must(err)
		if size < 18 || binary.BigEndian.Uint16(buf[12:]) != 0x88b5 {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		k.must(err)
		for _, m := range messages {
			if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				left[binary.BigEndian.Uint32(buf[14:])] = int64(binary.NativeEndian.Uint64(m.Data))*second + int64(binary.NativeEndian.Uint64(m.Data[8:]))
			}
		}
		got++
	}
	return left
}
