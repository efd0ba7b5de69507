// SPDX-License-Identifier: Apache-2.0

package qdisc_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/packet"
	kt "sluice/test/kerneltest"
)

// rest is how long after the last packet was offered the last one has left, s.
const rest = 60

// TestRecordDepartures prints what TestSameDeparturesAsRecorded compares with. It is run
// by test/vm/run, where time passes exactly and, while all wait, at once.
func TestRecordDepartures(t *testing.T) {
	if os.Getenv("SLUICE_VM") == "" {
		return
	}
	for _, c := range trials() {
		t.Run(c.name(), func(t *testing.T) {
			k := newKernel(t, c.theirs())
			if k.super = c.load.super > 0; k.super {
				k.in.Set(unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
			}
			offers := c.load.offers(c.name())
			d := departures{Name: c.name()}
			planned := k.play(offers)
			for i := range offers {
				d.Late = append(d.Late, (offers[i].at-planned[i])/tick)
			}
			for _, l := range k.collect() {
				d.add(l)
			}
			k.print("DEP", d)
		})
	}
}

// TestRecordChances prints what TestSameChancesAsRecorded compares with, likewise.
func TestRecordChances(t *testing.T) {
	if os.Getenv("SLUICE_VM") == "" {
		return
	}
	for _, c := range chances() {
		t.Run(c.name(), func(t *testing.T) {
			k := newKernel(t, c.lines)
			w := newWatcher(&c, c.load.offers(c.name()))
			k.play(w.offers)
			k.each(func(b []byte, at int64) { w.see(b, at-k.zero) })
			o := w.done(c.what)
			o.Times = differences(o.Times)
			k.print("CHA", o)
		})
	}
}

// kernel is a veth with a discipline.
type kernel struct {
	t       *testing.T
	in, out *kt.End
	super   bool  // frames have a vnet header
	zero    int64 // ns of the clock when the load began
}

func newKernel(t *testing.T, lines []string) *kernel {
	t.Helper()
	debug.SetGCPercent(-1) // nothing else is to run meanwhile
	runtime.GC()
	kt.Enter(t)
	k := &kernel{t: t}
	k.must(unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0))
	kt.IP(t, "link add q0 numtxqueues 1 type veth peer name q1", "link set q0 up", "link set q1 up")
	ingress := strings.HasSuffix(lines[0], "ingress")
	dev := map[bool]string{false: "q0", true: "q1"}[ingress]
	for _, line := range lines {
		kt.Run(t, append([]string{"tc"}, strings.Fields(strings.ReplaceAll(line, "DEV", dev))...)...)
	}
	k.in, k.out = kt.Open(t, "q0"), kt.Open(t, "q1")
	if ingress { // what is of one protocol, here in network byte order, is seen after it
		k.must(unix.Bind(k.out.FD, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_IP >> 8, Ifindex: k.out.Index}))
	}
	k.in.Set(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20)
	k.out.Set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	k.out.Set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	return k
}

func (k *kernel) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) print(kind string, record any) {
	k.t.Helper()
	text, err := json.Marshal(record)
	k.must(err)
	fmt.Printf("%s %s\n", kind, text)
}

func (k *kernel) now() int64 {
	var ts unix.Timespec
	k.must(unix.ClockGettime(unix.CLOCK_REALTIME, &ts))
	return ts.Nano()
}

func (k *kernel) sleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_REALTIME, unix.TIMER_ABSTIME, &ts, nil), unix.EINTR) {
	}
}

// play offers the packets at their times, then lets all leave. It sets the times at which
// they were offered, and returns those that were planned.
func (k *kernel) play(offers []offer) (planned []int64) {
	k.zero = k.now() + 2e9
	for i := range offers {
		o := &offers[i]
		planned = append(planned, o.at)
		k.in.Set(unix.SOL_SOCKET, unix.SO_PRIORITY, int(o.priority))
		k.in.Set(unix.SOL_SOCKET, unix.SO_MARK, int(o.mark))
		b := o.bytes
		if k.super {
			b = make([]byte, packet.VnetLen, packet.VnetLen+len(b))
			o.vnet.Encode(b)
			b = append(b, o.bytes...)
		}
		k.sleepUntil(k.zero + o.at)
		o.at = k.now() - k.zero
		_, _ = unix.Write(k.in.FD, b) // it says so if the packet is dropped
	}
	k.sleepUntil(k.now() + rest*1e9)
	return planned
}

// collect is what left, in order.
func (k *kernel) collect() (left []leaving) {
	k.each(func(b []byte, at int64) {
		if i := numberOf(b); i >= 0 {
			left = append(left, leaving{i, at - k.zero, b[15]&3 == 3})
		}
	})
	slices.SortStableFunc(left, func(a, b leaving) int { return int(a.at - b.at) })
	return left
}

// each calls do for all packets that have come, with their times.
func (k *kernel) each(do func(b []byte, at int64)) {
	buf, oob := make([]byte, 1<<16), make([]byte, 200)
	for {
		size, oobn, _, _, err := unix.Recvmsg(k.out.FD, buf, oob, 0)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		k.must(err)
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		k.must(err)
		for _, m := range messages {
			if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				do(buf[:size], int64(binary.NativeEndian.Uint64(m.Data))*1e9+int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
}
