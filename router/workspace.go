// SPDX-License-Identifier: Apache-2.0

package router

import "sluice/packet"

// workspace is where the slow path makes frames. One goroutine has it at a time.
type workspace struct {
	frame, segment, piece packet.Frame
	segmenter             packet.Segmenter
	fragmenter            packet.Fragmenter
	buf                   []byte
}

func newWorkspace() *workspace {
	ws := &workspace{buf: make([]byte, 0, 2048)}
	for _, f := range []*packet.Frame{&ws.frame, &ws.segment, &ws.piece} {
		f.SetBuf(make([]byte, packet.BufLen))
	}
	return ws
}

func (r *Router) space() *workspace { return r.spaces.Get().(*workspace) }

// copyOf is a copy of a frame without what stands behind its packet.
func (ws *workspace) copyOf(f *packet.Frame) *packet.Frame {
	g := &ws.frame
	g.Reset(packet.Headroom, f.View.End)
	copy(g.Bytes(), f.Bytes())
	g.Vnet, g.View, g.InPort, g.Label = f.Vnet, f.View, f.InPort, f.Label
	g.View.Flags &^= packet.ViewTrailer
	return g
}

// load makes a held frame one to look at; false if it isn't an IP packet.
func (ws *workspace) load(b []byte, vnet packet.Vnet) (*packet.Frame, bool) {
	g := &ws.frame
	if len(b) > packet.MaxFrame {
		return nil, false
	}
	g.Reset(packet.Headroom, len(b))
	copy(g.Bytes(), b)
	g.Vnet = vnet
	ok := g.View.Parse(g.Bytes()) == packet.FaultNone && g.View.Is(packet.ViewIP)
	return g, ok
}
