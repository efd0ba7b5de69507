// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/test/traffic/report"
)

const captureBatch = 64

// capture reads every frame of an interface, both ways, with the kernel's
// offload metadata, and verifies its checksums, until it is interrupted.
func capture(ctx context.Context, args []string) (any, error) {
	f := flags("capture")
	ifname := f.String("i", "eth0", "interface")
	incoming := f.Bool("in", false, "only what arrives")
	complete := f.Bool("complete", false, "a partial checksum or a frame for segmentation is bad")
	largest := f.Int("largest", 0, "an IP packet of more bytes is bad; 0: any size")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	fd, err := rawSocket(*ifname, true, *incoming)
	if err != nil {
		return nil, err
	}
	if err := setTimeout(fd, 100); err != nil {
		return nil, err
	}
	c := watcher{complete: *complete, largest: *largest}
	ready()
	c.run(ctx, fd)
	c.report.Lost = kernelDrops(fd)
	if c.report.Bad > 0 {
		return c.report, errWrong
	}
	return c.report, nil
}

// watcher counts frames and keeps the first bad one.
type watcher struct {
	complete bool
	largest  int
	frame    packet.Frame
	report   report.Capture
}

// run reads until it is told to end, and then what is still queued.
func (w *watcher) run(ctx context.Context, fd int) {
	b := newBatch(captureBatch, packet.BufLen, packet.Headroom-packet.VnetLen, 64)
	for {
		n, err := b.recv(fd, unix.MSG_WAITFORONE)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			w.report.Errors++
			if !errors.Is(err, unix.EINVAL) { // EINVAL: metadata that vnet headers can't say
				return
			}
		}
		for i := range n {
			size, oob := b.message(i)
			w.frame.SetBuf(b.bufs[i])
			w.frame.Received(size)
			if _, tagged := auxTag(oob); tagged {
				w.report.Tagged++
			}
			w.look(&w.frame)
		}
		if n <= 0 && ctx.Err() != nil {
			return
		}
	}
}

// look classifies one frame.
func (w *watcher) look(f *packet.Frame) {
	w.report.Frames++
	b := f.Bytes()
	if fault := f.View.Parse(b); fault != packet.FaultNone {
		w.bad(f, fmt.Sprintf("parse: %v", fault))
		return
	}
	v := &f.View
	if v.Is(packet.ViewIP) {
		w.report.LargestL3 = max(w.report.LargestL3, v.End-v.L3)
	}
	if f.Vnet.IsGSO() {
		w.report.GSO++
	}
	switch note := w.judge(f); {
	case note != "":
		w.bad(f, note)
	case !v.Is(packet.ViewHasL4) || v.Is(packet.ViewFrag):
		w.report.Unchecked++
	case f.Vnet.NeedsCsum():
		w.report.Partial++
	default:
		w.report.Complete++
	}
}

// judge says what is wrong with a frame, or nothing.
func (w *watcher) judge(f *packet.Frame) string {
	b, v := f.Bytes(), &f.View
	switch {
	case w.largest > 0 && v.Is(packet.ViewIP) && v.End-v.L3 > w.largest:
		return fmt.Sprintf("IP packet of %d bytes, the limit is %d", v.End-v.L3, w.largest)
	case w.complete && (f.Vnet.NeedsCsum() || f.Vnet.IsGSO()):
		return "offload metadata where there must be none"
	case !packet.VerifyL3(b, v):
		return "IPv4 header checksum"
	case f.Vnet.NeedsCsum() && !packet.PartialOK(f):
		return "partial checksum is not the pseudo-header's sum"
	case !f.Vnet.NeedsCsum() && !packet.VerifyL4(b, v):
		return "checksum"
	}
	return ""
}

func (w *watcher) bad(f *packet.Frame, note string) {
	w.report.Bad++
	if w.report.BadNote == "" {
		w.report.BadNote = fmt.Sprintf("%s: %d bytes, vnet %+v, view %+v", note, f.Len(), f.Vnet, f.View)
		w.report.BadHex = hex.EncodeToString(f.Bytes()[:min(f.Len(), 128)])
	}
}
