// SPDX-License-Identifier: Apache-2.0

package router

import (
	"encoding/binary"

	"sluice/packet"
	"sluice/trace"
)

// optionFault is what is wrong with the options of a packet.
type optionFault struct {
	reason trace.Reason
	report bool // its sender is told, with
	e      packet.ICMPError
}

// optionFault drops the packet, and tells its sender if the fault says so.
func (w *passage) optionFault(f *optionFault) Verdict {
	if f.report {
		w.report(f.e)
	}
	return drop(f.reason)
}

// options looks at what a packet asks of each router on its way: the options of
// IPv4 (ip_rcv_options) and the hop-by-hop options of IPv6 (ipv6_parse_hopopts).
// Nil if there is nothing wrong with them, as there mostly is nothing.
func (w *passage) options() *optionFault {
	b, v := w.Frame.Bytes(), &w.Frame.View
	switch {
	case w.Local:
		return nil
	case v.Is(packet.ViewIPOptions):
		return options4(b[v.L3:v.L4])
	case v.Is(packet.ViewExtHdrs) && b[v.L3+6] == packet.ProtoHopByHop:
		return options6(b[v.L3:v.End])
	}
	return nil
}

// Options of IPv4, RFC 791 §3.1 and RFC 2113.
const (
	opt4End    = 0
	opt4Nop    = 1
	opt4Record = 7
	opt4Time   = 68
	opt4LSRR   = 131
	opt4Alert  = 148
	opt4SSRR   = 137
)

// options4 checks the options of the header h as ip_options_compile does. A
// source route is never followed (accept_source_route is off).
func options4(h []byte) *optionFault {
	var seen [256]bool
	for i := packet.IPv4MinLen; i < len(h); {
		if h[i] == opt4End {
			return nil
		}
		if h[i] == opt4Nop {
			i++
			continue
		}
		o := h[i:]
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) || seen[o[0]] && onlyOnce(o[0]) {
			return problem4(i)
		}
		seen[o[0]] = true
		o = o[:o[1]]
		if at := wrongAt(o); at > 0 {
			return problem4(i + at)
		}
		if o[0] == opt4LSRR || o[0] == opt4SSRR {
			return &optionFault{reason: trace.SourceRoute}
		}
		i += len(o)
	}
	return nil
}

func onlyOnce(kind byte) bool {
	switch kind {
	case opt4Record, opt4Time, opt4LSRR, opt4SSRR:
		return true
	}
	return false
}

// problem4 is the fault at an offset of the header.
func problem4(at int) *optionFault {
	return &optionFault{trace.MalformedOption, true, packet.ICMPError{Type: packet.ICMPParamProblem, Info: uint32(at) << 24}}
}

// wrongAt is the offset of the byte in an option that can't be; 0 if none.
func wrongAt(o []byte) int {
	switch o[0] {
	case opt4Record, opt4LSRR, opt4SSRR:
		switch {
		case len(o) < 3:
			return 1
		case o[2] < 4, o[0] == opt4Record && int(o[2]) <= len(o) && int(o[2])+3 > len(o):
			return 2
		}
	case opt4Time:
		return wrongTime(o)
	case opt4Alert:
		if len(o) < 4 {
			return 1
		}
	}
	return 0
}

// wrongTime is wrongAt for a timestamp, whose fourth byte counts those who found
// no room, and says whether addresses stand beside the times.
func wrongTime(o []byte) int {
	const withAddr, prespecified = 1, 3
	switch {
	case len(o) < 4:
		return 1
	case o[2] < 5:
		return 2
	case int(o[2]) > len(o):
		if o[3]>>4 == 15 && o[3]&0xf != prespecified {
			return 3
		}
		return 0
	}
	room := 3
	switch o[3] & 0xf {
	case withAddr, prespecified:
		room = 7
	}
	if int(o[2])+room > len(o) {
		return 2
	}
	return 0
}

// options6 does what the options in the hop-by-hop header of the packet p ask of a
// router that doesn't know them (RFC 8200 §4.2).
func options6(p []byte) *optionFault {
	h := p[packet.IPv6Len:]
	h = h[:8*(int(h[1])+1)] // the parse has seen that it is whole
	for i := 2; i < len(h); {
		if h[i] == 0 { // Pad1
			i++
			continue
		}
		if i+1 >= len(h) || i+2+int(h[i+1]) > len(h) {
			return &optionFault{reason: trace.MalformedOption}
		}
		if !knownOption6(h[i]) {
			if f := unknownOption6(h[i], packet.IPv6Len+i); f != nil {
				return f
			}
		}
		i += 2 + int(h[i+1])
	}
	return nil
}

// knownOption6 reports PadN and the router alert (RFC 2711).
func knownOption6(kind byte) bool { return kind == 1 || kind == 5 }

// unknownOption6 is what the two upper bits of an option's type ask for.
func unknownOption6(kind byte, at int) *optionFault {
	switch kind >> 6 {
	case 0:
		return nil
	case 1:
		return &optionFault{reason: trace.MalformedOption}
	}
	return &optionFault{trace.MalformedOption, true, packet.ICMPError{
		Type: packet.ICMP6ParamProblem, Code: packet.ICMP6UnknownOption, Info: uint32(at),
	}}
}

// recordsRoute reports whether the packet wants the address of each router.
func (w *passage) recordsRoute() bool {
	v := &w.Frame.View
	return v.Is(packet.ViewIPOptions) && !w.Local && !w.As.Turns() && recordAt(w.Frame.Bytes()[v.L3:v.L4]) > 0
}

// recorded sends on what the router has written its address into.
func (w *passage) recorded() Verdict {
	ws := w.r.space()
	defer w.r.spaces.Put(ws)
	f := ws.copyOf(w.Frame)
	f.DecrementTTL()
	w.recordRoute(f)
	if reason := w.leave(f); reason != trace.None {
		return drop(reason)
	}
	if reason := w.r.emit(w, w.out, w.via, f.Bytes(), f.Vnet, f.Label); reason != trace.None {
		return drop(reason)
	}
	return Verdict{Action: Consumed}
}

// recordAt finds the option in the header h that wants the address of each
// router; 0 if there is none, or it has no room left.
func recordAt(h []byte) int {
	for i := packet.IPv4MinLen; i < len(h) && h[i] != opt4End; {
		switch {
		case h[i] == opt4Nop:
			i++
		case i+2 >= len(h) || h[i+1] < 2:
			return 0
		case h[i] == opt4Record:
			if p := int(h[i+2]); p+3 <= int(h[i+1]) {
				return i
			}
			return 0
		default:
			i += int(h[i+1])
		}
	}
	return 0
}

// recordRoute writes the router's address where the packet wants it (RFC 791 §3.1,
// ip_forward_options), if it wants it.
func (w *passage) recordRoute(f *packet.Frame) {
	h := f.Bytes()[f.View.L3:f.View.L4]
	at := recordAt(h)
	src := w.st.source4(&w.res, w.via)
	if at == 0 || !src.IsValid() {
		return
	}
	a, o := src.As4(), h[at:]
	copy(o[o[2]-1:], a[:])
	o[2] += 4
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h, 0))
}
