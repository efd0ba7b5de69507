// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/packet/packettest"
	"sluice/test/traffic/report"
)

// fanBatch frames are sent in one system call.
const fanBatch = 64

// fan opens very many flows from one interface: a frame of each, all from the
// interface's address to one other, by their ports. UDP, or segments of TCP from the
// middle of a connection, or SYNs.
func fan(ctx context.Context, args []string) (any, error) {
	f := flags("fan")
	ifname := f.String("i", "eth0", "interface")
	via := f.String("via", "", "MAC address of the gateway")
	from := f.String("from", "", "address of the interface")
	to := f.String("to", "", "address of nobody")
	flows := f.Int("flows", 1_000_000, "how many")
	tcp := f.Bool("tcp", false, "segments of TCP instead of datagrams")
	syn := f.Bool("syn", false, "SYNs instead of datagrams")
	turn := f.Bool("turn", false, "source and destination ports change places: answers, or a scan of ports")
	persecond := f.Int("rate", 100_000, "frames a second")
	ports := f.Int("ports", 60_000, "source ports; each has as many destination ports as are needed")
	skip := f.Int("skip", 0, "flows that are left out first")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(*via)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("-via %q: want a MAC address", *via)
	}
	src, err := netip.ParseAddr(*from)
	if err != nil {
		return nil, fmt.Errorf("-from: %w", err)
	}
	dst, err := netip.ParseAddr(*to)
	if err != nil || !src.Is4() || !dst.Is4() {
		return nil, fmt.Errorf("-from %s -to %s: want IPv4", *from, *to)
	}
	link, err := net.InterfaceByName(*ifname)
	if err != nil {
		return nil, err
	}
	fd, err := rawSocket(*ifname, false, true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	p := packettest.Packet{Src: src, Dst: dst, SrcMAC: packet.MAC(link.HardwareAddr), DstMAC: packet.MAC(mac), SrcPort: 1, DstPort: 1, Flags: packettest.ACK, Seq: 1000, Ack: 1000}
	raw := packettest.UDP4(p)
	if *syn {
		p.Flags, p.Ack = packettest.SYN, 0
	}
	if *tcp || *syn {
		raw = packettest.TCP4(p)
	}
	s := spreading{skip: *skip, flows: *flows, ports: *ports, persecond: *persecond, turned: *turn}
	return s.run(ctx, fd, raw)
}

// spreading is how flows differ, and how fast they come.
type spreading struct {
	skip, flows, ports, persecond int
	turned                        bool // it is destination ports that there are many of
}

// of is the ports of a flow.
func (s *spreading) of(n int) (src, dst uint16) {
	src, dst = uint16(1024+n%s.ports), uint16(1024+n/s.ports)
	if s.turned {
		return dst, src
	}
	return src, dst
}

// run sends a frame with the ports of each flow, at a rate.
func (s *spreading) run(ctx context.Context, fd int, raw []byte) (any, error) {
	b := newBatch(fanBatch, len(raw), 0, 0)
	for i := range b.bufs {
		copy(b.bufs[i], raw)
		b.setLen(i, len(raw))
	}
	var r report.Rate
	start := time.Now()
	for n := 0; n < s.flows && ctx.Err() == nil; {
		size := min(fanBatch, s.flows-n)
		for i := range size {
			src, dst := s.of(s.skip + n + i)
			setPorts(b.bufs[i], raw, src, dst)
		}
		for sent := 0; sent < size && ctx.Err() == nil; {
			done, err := b.send(fd, sent, size)
			sent += done
			if err != nil { // the queue is full
				r.Errors++
				time.Sleep(100 * time.Microsecond)
			}
		}
		n += size
		r.Count += uint64(size)
		if due := time.Duration(float64(n) / float64(s.persecond) * 1e9); due > time.Since(start) {
			time.Sleep(due - time.Since(start))
		}
	}
	return rate(r.Count, r.Errors, time.Since(start)), nil
}

// setPorts changes the ports of raw, which has 1 and 1, and what follows from them.
func setPorts(b, raw []byte, src, dst uint16) {
	const l4 = packet.EthernetLen + packet.IPv4MinLen
	binary.BigEndian.PutUint16(b[l4:], src)
	binary.BigEndian.PutUint16(b[l4+2:], dst)
	at := l4 + 6
	if raw[packet.EthernetLen+9] == packet.ProtoTCP {
		at = l4 + 16
	}
	sum := uint32(^binary.BigEndian.Uint16(raw[at:])) + uint32(src) + uint32(dst) + 0xffff - 2
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[at:], ^uint16(sum))
}
