// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// TestLogText: the words of the kernel's log, nf_log_syslog.c.
func TestLogText(t *testing.T) {
	in, out := NewDevice("web", Device{}), NewDevice("out", Device{})
	four := pt.Packet{
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, DstMAC: packet.MAC{2, 0, 0, 0, 0, 2}, Src: pt.IP("10.9.0.2"), Dst: pt.IP("10.8.0.2"),
		SrcPort: 44468, DstPort: 81, Flags: pt.SYN, ID: 2721, Seq: 7, TTL: 63,
	}
	six := four
	six.Src, six.Dst = pt.IP("fd09::2"), pt.IP("fd08::2")
	for _, c := range []struct {
		log   nft.Log
		mark  uint32
		frame []byte
		local bool
		want  string
	}{
		{
			nft.Log{Prefix: "drop: "},
			0, pt.TCP4(four), false,
			"drop: IN=web OUT=out MAC=02:00:00:00:00:02:02:00:00:00:00:01:08:00 SRC=10.9.0.2 DST=10.8.0.2 LEN=40 TOS=0x00 PREC=0x00 TTL=63 ID=2721 PROTO=TCP SPT=44468 DPT=81 WINDOW=65535 RES=0x00 SYN URGP=0",
		},
		{
			nft.Log{Flags: 31 | 32},
			5, pt.TCP4(four), false,
			"IN=web OUT=out MACSRC=02:00:00:00:00:01 MACDST=02:00:00:00:00:02 MACPROTO=0800 SRC=10.9.0.2 DST=10.8.0.2 LEN=40 TOS=0x00 PREC=0x00 TTL=63 ID=2721 PROTO=TCP SPT=44468 DPT=81 SEQ=7 ACK=0 WINDOW=65535 RES=0x00 SYN URGP=0 MARK=0x5",
		},
		{
			nft.Log{},
			0, pt.UDP6(six), true,
			"IN= OUT=out SRC=fd09:0000:0000:0000:0000:0000:0000:0002 DST=fd08:0000:0000:0000:0000:0000:0000:0002 LEN=48 TC=0 HOPLIMIT=63 FLOWLBL=0 PROTO=UDP SPT=44468 DPT=81 LEN=8",
		},
		{
			nft.Log{},
			0, pt.Ping4(four), true,
			"IN= OUT=out SRC=10.9.0.2 DST=10.8.0.2 LEN=28 TOS=0x00 PREC=0x00 TTL=63 ID=2721 PROTO=ICMP TYPE=8 CODE=0 ID=2721 SEQ=7",
		},
		{
			nft.Log{},
			0, pt.Ping6(six), true,
			"IN= OUT=out SRC=fd09:0000:0000:0000:0000:0000:0000:0002 DST=fd08:0000:0000:0000:0000:0000:0000:0002 LEN=48 TC=0 HOPLIMIT=63 FLOWLBL=0 PROTO=ICMPv6 TYPE=128 CODE=0 ID=2721 SEQ=7",
		},
		{
			nft.Log{},
			0, pt.ARPRequest(four), false,
			"IN=web OUT=out ARP HTYPE=1 PTYPE=0x0800 OPCODE=1 MACSRC=02:00:00:00:00:01 IPSRC=10.9.0.2 MACDST=00:00:00:00:00:00 IPDST=10.8.0.2",
		},
		{
			nft.Log{},
			0, pt.SCTP4(four), true,
			"IN= OUT=out SRC=10.9.0.2 DST=10.8.0.2 LEN=32 TOS=0x00 PREC=0x00 TTL=63 ID=2721 PROTO=132",
		},
	} {
		f := pt.Frame(c.frame)
		l := LogLine{Log: &c.log, In: in, Out: out, Mark: c.mark, View: f.View, Frame: f.Bytes()[:min(f.Len(), LogBytes)]}
		if c.local {
			l.In = nil
		}
		if got := l.Text(); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
		// However little was kept of it, there is a line.
		for n := range l.Frame {
			short := l
			short.Frame = l.Frame[:n]
			if short.Text() == "" {
				t.Errorf("%d bytes: no line", n)
			}
		}
	}
}

// TestLogTextOfErrors: what an ICMP error quotes is in brackets.
func TestLogTextOfErrors(t *testing.T) {
	inner := pt.UDP4(pt.Packet{Src: pt.IP("10.8.0.2"), Dst: pt.IP("10.9.0.2"), SrcPort: 5, DstPort: 6, TTL: 64})[14:]
	b := append(pt.Ping4(pt.Packet{Src: pt.IP("10.9.0.2"), Dst: pt.IP("10.8.0.2"), TTL: 64}), inner...)
	f := pt.Frame(b)
	f.Bytes()[f.View.L4], f.Bytes()[f.View.L4+1] = 3, 4
	f.Bytes()[f.View.L4+6], f.Bytes()[f.View.L4+7] = 1280>>8, 1280&255
	l := LogLine{Log: &nft.Log{}, View: f.View, Frame: f.Bytes()}
	want := "PROTO=ICMP TYPE=3 CODE=4 [SRC=10.8.0.2 DST=10.9.0.2 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=0 PROTO=UDP SPT=5 DPT=6 LEN=8 ] MTU=1280"
	if got := l.Text(); len(got) < len(want) || got[len(got)-len(want):] != want {
		t.Errorf("got\n%s\nwant at its end\n%s", got, want)
	}
}
