// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/packet/packettest"
	"sluice/test/traffic/report"
)

const hostileBatch = 64

// hostile sends frames that no honest container would: random ones, mutated
// ones, with addresses of others and with offload metadata that lies. The same
// seed and addresses make the same frames.
func hostile(ctx context.Context, args []string) (any, error) {
	f := flags("hostile")
	ifname := f.String("i", "eth0", "interface")
	frames := f.Uint64("frames", 100_000, "how many frames to send")
	seed := f.Uint64("seed", 1, "what the frames are made from")
	known := f.String("known", "", "MAC addresses, by commas, to send to and to pretend to be")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	a := attacker{rnd: rand.New(rand.NewPCG(*seed, *seed)), report: report.Hostile{Seed: *seed}}
	for word := range strings.SplitSeq(*known, ",") {
		if mac, err := packet.ParseMAC(word); err == nil {
			a.known = append(a.known, mac)
		} else if word != "" {
			return nil, fmt.Errorf("-known: %w", err)
		}
	}
	if err := a.open(*ifname); err != nil {
		return nil, err
	}
	ready()
	start := time.Now()
	for ctx.Err() == nil && a.report.Sent < *frames {
		if err := a.turn(); err != nil {
			return a.report, err
		}
	}
	a.report.Seconds = time.Since(start).Seconds()
	return a.report, nil
}

// attacker has two sockets: the kernel looks at vnet headers and refuses many,
// so three of four batches go out without one.
type attacker struct {
	rnd    *rand.Rand
	known  []packet.MAC
	plain  gun
	vnet   gun
	report report.Hostile
}

// gun is a socket and its batch; room is for the vnet header.
type gun struct {
	fd    int
	room  int
	batch *batch
}

func (a *attacker) open(ifname string) error {
	for _, g := range []*gun{&a.plain, &a.vnet} {
		if g == &a.vnet {
			g.room = packet.VnetLen
		}
		fd, err := rawSocket(ifname, g.room > 0, true)
		if err != nil {
			return err
		}
		g.fd, g.batch = fd, newBatch(hostileBatch, packet.VnetLen+packet.MaxFrame, 0, 0)
	}
	return nil
}

// maxRetries bounds the waiting for room for one frame: the kernel also says
// ENOBUFS for metadata that it can't make sense of, and always will.
const maxRetries = 3

// turn makes a batch and sends it. What the kernel refuses is passed over, one
// message at a time; a full send buffer is waited for.
func (a *attacker) turn() error {
	g := &a.plain
	if a.rnd.IntN(4) == 0 {
		g = &a.vnet
	}
	for i := range hostileBatch {
		g.batch.setLen(i, a.load(g, g.batch.bufs[i]))
	}
	tries := 0
	for first := 0; first < hostileBatch; {
		n, err := g.batch.send(g.fd, first, hostileBatch)
		a.report.Sent += uint64(n)
		first += n
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
			tries = 0
		case tries < maxRetries && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN)):
			tries++
			a.report.Retried++
			time.Sleep(100 * time.Microsecond)
		case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
			return err
		default:
			a.report.Refused++
			first++
			tries = 0
		}
	}
	return nil
}

// load puts one frame into a buffer and returns what there is to send.
func (a *attacker) load(g *gun, buf []byte) int {
	b := a.frame()
	if g.room > 0 {
		packettest.RandomVnet(a.rnd, len(b)).Encode(buf)
	}
	return g.room + copy(buf[g.room:], b)
}

// frame is a random one, as it is or mutated, sometimes nothing but noise.
func (a *attacker) frame() []byte {
	if a.rnd.IntN(32) == 0 {
		return a.noise()
	}
	b := packettest.Random(a.rnd)
	a.disguise(b)
	if a.rnd.IntN(3) > 0 {
		b = packettest.Mutate(a.rnd, b)
	}
	return b[:min(len(b), packet.MaxFrame)]
}

// noise is bytes without any form behind two addresses, so that every EtherType
// occurs.
func (a *attacker) noise() []byte {
	b := make([]byte, 14+a.rnd.IntN(1500))
	for i := range b {
		b[i] = byte(a.rnd.Uint32())
	}
	a.disguise(b)
	return b
}

// disguise changes the addresses of some frames: to a station that is there,
// from a station that is there, or from one that nobody has ever heard of, which
// is how a forwarding table is filled up.
func (a *attacker) disguise(b []byte) {
	if len(b) < packet.EthernetLen {
		return
	}
	if len(a.known) > 0 && a.rnd.IntN(3) == 0 {
		mac := a.known[a.rnd.IntN(len(a.known))]
		copy(b, mac[:])
	}
	switch a.rnd.IntN(8) {
	case 0:
		if len(a.known) > 0 {
			mac := a.known[a.rnd.IntN(len(a.known))]
			copy(b[6:], mac[:])
		}
	case 1, 2:
		for i := 6; i < 12; i++ {
			b[i] = byte(a.rnd.Uint32())
		}
		b[6] &^= 1 // not a group
	}
}
