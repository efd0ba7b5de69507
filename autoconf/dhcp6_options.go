// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"sluice/packet"
)

const minRefresh = 600 // IRT_MINIMUM, RFC 8415 §21.23

// server6 is a compiled DHCP6.
type server6 struct {
	stateless        bool
	preferred, valid uint32
	duid             []byte
	refresh          [4]byte
	options          []option6 // the most important first
}

type option6 struct {
	code uint16
	data []byte
}

func (d *DHCP6) compile(l *link) (*server6, error) {
	s := &server6{stateless: d.Stateless, preferred: cmp.Or(d.Preferred, DefaultLease), duid: duid(l.mac)}
	s.valid = cmp.Or(d.Valid, twice(s.preferred))
	refresh := cmp.Or(d.Refresh, DefaultRefresh)
	switch {
	case l.mtu < minMTU6:
		return nil, fmt.Errorf("the network's MTU %d is less than %d", l.mtu, minMTU6)
	case s.preferred > s.valid:
		return nil, errors.New("preferred is longer than valid")
	case refresh < minRefresh:
		return nil, fmt.Errorf("refresh %d: less than %d", refresh, minRefresh)
	}
	binary.BigEndian.PutUint32(s.refresh[:], refresh)
	return s, s.compileOptions(d)
}

func (s *server6) compileOptions(d *DHCP6) error {
	dns, err := servers6("dns", d.DNS)
	if err != nil {
		return err
	}
	names, err := search(d.Search)
	if err != nil {
		return err
	}
	ntp, err := servers6("ntp", d.NTP)
	if err != nil {
		return err
	}
	s.add(opt6DNS, dns)
	s.add(opt6Search, names)
	for _, a := range d.NTP { // RFC 5908 §4: one server each
		s.add(opt6NTP, ntpServer(a))
	}
	s.add(opt6SNTP, ntp)
	return nil
}

func (s *server6) add(code uint16, data []byte) {
	if len(data) > 0 {
		s.options = append(s.options, option6{code, data})
	}
}

// duid names the server by its MAC, DUID-LL of RFC 8415 §11.4.
func duid(m packet.MAC) []byte { return append([]byte{0, 3, 0, htypeEthernet}, m[:]...) }

// ntpServer is the suboption of an address, RFC 5908 §4.1.
func ntpServer(a netip.Addr) []byte { return append([]byte{0, 1, 0, 16}, a.AsSlice()...) }

func twice(t uint32) uint32 {
	if t > Forever/2 {
		return Forever
	}
	return 2 * t
}
