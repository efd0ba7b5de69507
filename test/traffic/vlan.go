// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The EtherTypes of tags.
const (
	tpidQ  = 0x8100 // 802.1Q
	tpidAD = 0x88a8 // 802.1ad, the outer of two
)

// vlan is a VLAN sub-interface for kernels that are built without 8021q: a TAP
// device whose frames leave the parent tagged, and that gets what comes back
// with the same tags. Addresses and the MAC are set with ip(8), as for a
// kernel's sub-interface.
func vlan(ctx context.Context, args []string) (any, error) {
	f := flags("vlan")
	parent := f.String("parent", "eth0", "interface that carries the tagged frames")
	name := f.String("name", "", "name of the sub-interface; empty: PARENT.VID")
	vid := f.Uint("vid", 0, "VLAN identifier, 1 to 4094")
	outer := f.Uint("outer", 0, "identifier of an outer 802.1ad tag; 0: none")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if *name == "" {
		*name = fmt.Sprintf("%s.%d", *parent, *vid)
	}
	v := subInterface{tags: []vlanTag{{tpidQ, uint16(*vid)}}}
	if *outer > 0 {
		v.tags = []vlanTag{{tpidAD, uint16(*outer)}, {tpidQ, uint16(*vid)}}
	}
	var err error
	if v.raw, err = rawSocket(*parent, false, true); err != nil {
		return nil, err
	}
	if v.tap, err = openTAP(*name); err != nil {
		return nil, err
	}
	go v.out()
	go v.in()
	ready()
	<-ctx.Done()
	return nil, nil
}

// openTAP makes a TAP device without offloads: its frames are complete and no
// larger than its MTU.
func openTAP(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return fd, os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
}

type subInterface struct {
	tap, raw int
	tags     []vlanTag // outer first
}

// out tags what the container sends.
func (v *subInterface) out() {
	buf := make([]byte, 72<<10)
	room := 4 * len(v.tags)
	for {
		n, err := unix.Read(v.tap, buf[room:])
		if err != nil || n < 14 {
			if err == unix.EINTR || err == nil {
				continue
			}
			return
		}
		copy(buf, buf[room:room+12])
		for i, t := range v.tags {
			binary.BigEndian.PutUint16(buf[12+4*i:], t.tpid)
			binary.BigEndian.PutUint16(buf[14+4*i:], t.tci)
		}
		_, _ = unix.Write(v.raw, buf[:room+n])
	}
}

// in gives the container what carries its tags.
func (v *subInterface) in() {
	buf, oob := make([]byte, 72<<10), make([]byte, 128)
	for {
		n, oobn, _, _, err := unix.Recvmsg(v.raw, buf, oob, 0)
		if err != nil {
			if err == unix.EINTR || err == unix.ENETDOWN {
				continue
			}
			return
		}
		if frame, ok := v.untag(buf[:n], oob[:oobn]); ok {
			_, _ = unix.Write(v.tap, frame)
		}
	}
}

// untag takes the tags away. The kernel tells the outermost beside the frame.
func (v *subInterface) untag(b, oob []byte) ([]byte, bool) {
	tag, ok := auxTag(oob)
	if !ok || tag.tpid != v.tags[0].tpid || tag.tci&0xfff != v.tags[0].tci {
		return nil, false
	}
	inner := v.tags[1:]
	if len(b) < 14+4*len(inner) {
		return nil, false
	}
	for i, t := range inner {
		if binary.BigEndian.Uint16(b[12+4*i:]) != t.tpid || binary.BigEndian.Uint16(b[14+4*i:])&0xfff != t.tci {
			return nil, false
		}
	}
	room := 4 * len(inner)
	copy(b[room:room+12], b[:12])
	return b[room:], true
}
