// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// crashEnv makes the test binary the process that is killed.
const crashEnv = "CONNTRACK_TEST_VICTIM"

// flow makes the n-th flow of the victim; what its connection carries follows
// from it, so that a record of two halves shows.
func flow(n int) Tuple {
	tu := Tuple{
		Src: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), Dst: netip.AddrFrom4([4]byte{10, 2, 0, byte(n)}),
		SrcPort: uint16(1000 + n), DstPort: 80, Proto: packet.ProtoTCP,
	}
	if n%3 == 0 {
		tu.Proto = packet.ProtoUDP
	}
	if n%4 == 1 {
		tu.Src, tu.Dst = pt.IP("fd44::1:0"), netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(n >> 8), 15: byte(n)})
	}
	return tu
}

// translated is the reply that the victim gives a flow.
func translated(tu Tuple) Tuple {
	reply, _ := tu.Inverse()
	reply.DstPort += 20000
	return reply
}

func frameOf(tu Tuple, flags uint8, seq, ack uint32) *packet.Frame {
	if tu.Proto == packet.ProtoUDP {
		return pt.Frame(pt.Build(pt.EtherHdr{}, ipHdr(tu), pt.UDPHdr{SrcPort: tu.SrcPort, DstPort: tu.DstPort}))
	}
	return pt.Frame(pt.Build(pt.EtherHdr{}, ipHdr(tu), pt.TCPHdr{SrcPort: tu.SrcPort, DstPort: tu.DstPort, Flags: flags, Seq: seq, Ack: ack}))
}

const flows = 2000

// TestVictim is not a test: it writes into a table until it is killed.
func TestVictim(t *testing.T) {
	if os.Getenv(crashEnv) == "" {
		return // only as the child of TestKilledAtAnyStore
	}
	f := os.NewFile(3, "table")
	tab, _, err := Open(f, Config{}, testSecond)
	must(t, err)
	frames := make([][4]*packet.Frame, flows)
	for n := range frames {
		tu := flow(n)
		back := translated(tu)
		frames[n] = [4]*packet.Frame{
			frameOf(tu, pt.SYN, 100, 0), frameOf(back, pt.SYN|pt.ACK, 500, 101), frameOf(tu, pt.ACK, 101, 501), frameOf(back, pt.ACK, 501, 101),
		}
	}
	go func() {
		for {
			tab.Expire(testSecond + 1)
		}
	}()
	var p Pending
	if tab.Look(&Packet{Frame: frames[0][0], Now: testSecond}, &p); p.Active() { // else there is one
		confirm(tab, &p, 0)
	}
	_, err = os.Stdout.WriteString("ready\n") // it may come to nothing else on a busy machine
	must(t, err)
	go writeForEver(tab, frames, 0)
	writeForEver(tab, frames, 1)
}

// confirm begins the connection of the i-th flow.
func confirm(tab *Table, p *Pending, i int) {
	p.Reply = translated(p.Original)
	p.Mark, p.Aux = uint32(i), uint64(i)<<32|uint64(i)
	p.Target = Bind{uint16(i), uint32(i) + 1}
	tab.Confirm(p, testSecond)
}

// writeForEver begins, tracks and ends connections of every second flow, and
// tracks those of the others.
func writeForEver(tab *Table, frames [][4]*packet.Frame, which int) {
	var n Pending
	for r := rand.New(rand.NewPCG(rand.Uint64(), 0)); ; {
		i := r.IntN(len(frames))
		k := r.IntN(4)
		if i%2 != which && k == 0 {
			k = 2
		}
		p := Packet{Frame: frames[i][k], Now: testSecond, Port: uint16(i % 8)}
		v := tab.Look(&p, &n)
		switch {
		case n.Active() && k == 0:
			confirm(tab, &n, i)
		case v.Conn.Valid() && r.IntN(20) == 0:
			v.Conn.Delete(testSecond)
		}
	}
}

// TestKilledAtAnyStore kills a process that writes into the table as fast as it
// can, again and again, and goes on with what it left.
func TestKilledAtAnyStore(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 10
	}
	f, err := CreateFile(filepath.Join(t.TempDir(), "table"), 4096)
	must(t, err)
	defer f.Close()
	var sum Report
	for n := range kills {
		m, err := Map(f, Config{})
		must(t, err)
		killOne(t, f, n, m)
		rep := inspect(t, m)
		sum.Kept += rep.Kept
		sum.Repaired += rep.Repaired
		sum.Torn += rep.Torn
		if rep.Bad > 0 || rep.Kept == 0 {
			t.Errorf("kill %d: %+v", n, rep)
		}
	}
	t.Logf("%d kills: %+v", kills, sum)
}

// killOne kills a process that writes, of each second one while m follows it.
func killOne(t *testing.T, f *os.File, n int, m *Mapped) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), crashEnv+"=1", "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ready := make([]byte, 6)
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Errorf("the victim says nothing: %v", err)
	}
	end := time.Now().Add(time.Duration(5+n%17)*time.Millisecond + time.Duration(rand.IntN(1000))*time.Microsecond)
	for n%2 == 1 && time.Now().Before(end) {
		m.Follow(runtime.Gosched)
	}
	time.Sleep(time.Until(end))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
}

// inspect opens the table as the next process would, and looks at all that is in
// it.
func inspect(t *testing.T, m *Mapped) Report {
	t.Helper()
	tab, rep := m.Open(testSecond)
	defer tab.Close()
	sound(t, tab)
	seen := 0
	tab.Entries(nil, testSecond, func(e *Entry) bool {
		seen++
		i := int(e.Mark)
		if want := flow(i); e.Original != want || e.Reply != translated(want) || e.Aux != uint64(i)<<32|uint64(i) ||
			e.Target != (Bind{uint16(i), uint32(i) + 1}) || e.Port != uint16(i%8) || e.Status&Confirmed == 0 {
			t.Errorf("not whole: %+v", e)
		}
		tryBoth(t, tab, e)
		return true
	})
	if seen != rep.Kept || tab.Len() != rep.Kept {
		t.Errorf("%d entries, %d counted, report %+v", seen, tab.Len(), rep)
	}
	return rep
}

// tryBoth lets a connection see the next packets of both directions, as if they
// were retransmitted.
func tryBoth(t *testing.T, tab *Table, e *Entry) {
	t.Helper()
	if e.Original.Proto != packet.ProtoTCP || e.State != "ESTABLISHED" {
		return
	}
	if s := e.Conn.Packet(Original, frameOf(e.Original, pt.ACK|pt.PSH, 101, 501), testSecond); s != Established {
		t.Errorf("%v: %v after the crash", e.Original, s)
	}
	if s := e.Conn.Packet(Reply, frameOf(e.Reply, pt.ACK|pt.PSH, 501, 101), testSecond); s != Established {
		t.Errorf("%v: %v after the crash", e.Reply, s)
	}
}
