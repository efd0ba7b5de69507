// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/conntrack"
	"sluice/nat"
)

// ConnectionsSpec says whether a namespace tracks connections, and what it does with
// them. Zero tracks nothing and costs nothing.
type ConnectionsSpec struct {
	Track bool `json:"track,omitempty"`
	// Zone is the namespace's number in the table that all share: 1 to 65535, unique
	// among those that track, and the same for as long as the namespace lives.
	Zone uint16 `json:"zone,omitempty"`
	// Profile is "kernel" (or empty) or "rfc": whose timeouts, and whose address
	// translation.
	Profile string `json:"profile,omitempty"`
	// Filtering is what may come in by a mapping of the profile rfc:
	// "address-and-port" (or empty), "address" or "endpoint".
	Filtering string `json:"filtering,omitempty"`
	// Linger is for how many seconds a port of the profile rfc stays its source's
	// behind the last connection.
	Linger uint32 `json:"linger,omitempty"`
	// Rules translate addresses. Their devices are indices.
	Rules []nat.Rule `json:"rules,omitempty"`
	// Services are what rules with a Target.Service lead to. Their numbers, and those
	// of their backends, are unique in the snapshot.
	Services []nat.Service `json:"services,omitempty"`
	// Bridged says that what stays in one network is tracked, too, see bridged.
	Bridged bool `json:"bridged,omitempty"`
}

// profileRFC is the profile that is not the kernel's.
const profileRFC = "rfc"

// rfc reports whether the namespace has that profile.
func (s *ConnectionsSpec) rfc() bool { return s.Profile == profileRFC }

// natZone is what the NAT is told of a namespace.
func (s *ConnectionsSpec) natZone() (z nat.ZoneConfig, err error) {
	z.Linger = s.Linger
	switch s.Profile {
	case "", "kernel":
	case profileRFC:
		z.Profile = nat.RFC
	default:
		return z, fmt.Errorf("no profile %q", s.Profile)
	}
	switch s.Filtering {
	case "", "address-and-port":
	case "address":
		z.Filtering = nat.Address
	case "endpoint":
		z.Filtering = nat.Endpoint
	default:
		return z, fmt.Errorf("no filtering %q", s.Filtering)
	}
	z.Rules, err = nat.Compile(s.Rules)
	return z, err
}

// tracking is what the table is told.
func (s *ConnectionsSpec) tracking() conntrack.ZoneConfig {
	if s.rfc() {
		return conntrack.RFC()
	}
	return conntrack.Kernel()
}

// Connections is the table of all connections, and what translates their addresses.
// A Netstack has one, since the memory that outlives it is one.
type Connections struct {
	table  *conntrack.Table
	nat    *nat.NAT
	now    atomic.Uint32 // seconds of CLOCK_BOOTTIME
	report conntrack.Report
	mapped *conntrack.Mapped // what the table was before open; nil without a file
}

// mapConnections makes what goes on with those in a file, as far as that can be done
// while another process works on it; or begins anew without a file.
func mapConnections(f *os.File) (*Connections, error) {
	c := new(Connections)
	seed, err := seedOf(f)
	if err != nil {
		return nil, err
	}
	c.nat = nat.New(nat.Config{Seed: seed})
	// The workers may have no processor but this one.
	rest := func() { time.Sleep(200 * time.Microsecond) }
	conf := conntrack.Config{Confirmed: c.nat.Confirmed, Removed: c.nat.Removed, Heed: nat.Heeds, Rest: rest}
	if f == nil {
		c.table, err = conntrack.NewTable(conf)
	} else {
		c.mapped, err = conntrack.Map(f, conf)
	}
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	return c, nil
}

// open goes on with the connections. Nobody else may work on the file.
func (c *Connections) open() {
	c.setTime()
	if c.mapped != nil {
		c.table, c.report = c.mapped.Open(c.Now())
	}
}

// StandBy prepares for a first Apply that goes on with the connections of a process
// that lives yet: the file is mapped, and nothing is written to it. Without a file it
// does nothing.
func (n *Netstack) StandBy() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return ErrClosed
	case n.opts.Connections == nil || n.conns.Load() != nil || n.standby.Load() != nil:
		return nil
	}
	c, err := mapConnections(n.opts.Connections)
	if err == nil {
		n.standby.Store(c)
		n.wg.Go(n.follow) // and again every second
	}
	return err
}

// follow is for a process that stands by: what it has prepared is kept up to date.
func (n *Netstack) follow() {
	if c := n.standby.Load(); c != nil {
		c.mapped.Follow(func() { time.Sleep(2 * time.Millisecond) })
	}
}

// openConnections opens those of the file, or begins anew without one.
func (n *Netstack) openConnections() (c *Connections, err error) {
	if c = n.standby.Swap(nil); c == nil {
		if c, err = mapConnections(n.opts.Connections); err != nil {
			return nil, err
		}
	}
	c.open()
	return c, nil
}

// seedOf is unguessable, and the same for the same file: sources find again what
// they were translated to. The file's first page has the secret of the table.
func seedOf(f *os.File) (seed [32]byte, err error) {
	page := make([]byte, 4096)
	if f == nil {
		_, err = unix.Getrandom(page[:32], 0)
	} else {
		_, err = f.ReadAt(page, 0)
	}
	if err != nil {
		return seed, fmt.Errorf("connections: %w", err)
	}
	return sha256.Sum256(append(page, "address translation"...)), nil
}

// setTime reads the clock that goes on while a process is replaced, and while the
// machine sleeps.
func (c *Connections) setTime() {
	if now := bootSeconds(); now != 0 {
		c.now.Store(now)
	}
}

// bootSeconds is CLOCK_BOOTTIME; 0 if it can't be read.
func bootSeconds() uint32 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint32(ts.Sec)
}

// everySecond ends what is over.
func (c *Connections) everySecond() {
	c.setTime()
	c.table.Expire(c.Now())
	c.nat.Expire(c.Now())
}

// Table is the table of connections, of all namespaces: each has its zone.
func (c *Connections) Table() *conntrack.Table { return c.table }

// NAT is what translates addresses.
func (c *Connections) NAT() *nat.NAT { return c.nat }

// Now is the time of the table: seconds of CLOCK_BOOTTIME, as of this second.
func (c *Connections) Now() uint32 { return c.now.Load() }

// Connections are those of all namespaces; nil if none has ever tracked them, or
// the Netstack is closed: what was returned before is then not to be used.
func (n *Netstack) Connections() *Connections { return n.conns.Load() }

// Zone is the namespace's in the table of connections; false if it tracks none.
func (ns *Namespace) Zone() (zone uint16, tracked bool) {
	s := ns.space()
	if s == nil || !s.spec.Connections.Track {
		return 0, false
	}
	return s.spec.Connections.Zone, true
}

// validate checks what can be seen of one namespace.
func (s *ConnectionsSpec) validate() error {
	if !s.Track {
		if s.Zone != 0 || s.Profile != "" || s.Filtering != "" || s.Linger != 0 || s.Bridged || len(s.Rules)+len(s.Services) != 0 {
			return errors.New("connections: address translation needs track")
		}
		return nil
	}
	if s.Zone == 0 {
		return errors.New("connections: zone 0 is nobody's")
	}
	if _, err := s.natZone(); err != nil {
		return fmt.Errorf("connections: %w", err)
	}
	return nil
}

// validateConnections checks what is unique in a snapshot.
func (s *Snapshot) validateConnections() error {
	for i := range s.Namespaces {
		if ns := &s.Namespaces[i]; ns.Rules != nil && !ns.Connections.Track {
			return invalid("namespace %q: nft: its connections are not tracked", ns.Name)
		}
	}
	zones := make(map[uint16]string)
	services, backends := make(map[uint16]string), make(map[uint16]string)
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		c := &ns.Connections
		if err := claimNumber(zones, c.Zone, ns.Name); err != nil {
			return invalid("namespace %q: zone: %v", ns.Name, err)
		}
		for j := range c.Services {
			v := &c.Services[j]
			if err := claimNumber(services, v.ID, ns.Name); err != nil {
				return invalid("namespace %q: service: %v", ns.Name, err)
			}
			for k := range v.Backends {
				if err := claimNumber(backends, v.Backends[k].Bind.ID, ns.Name); err != nil {
					return invalid("namespace %q: service %d: backend: %v", ns.Name, v.ID, err)
				}
			}
		}
	}
	return nil
}

// claimNumber notes whose a number is; 0 may be anybody's.
func claimNumber(taken map[uint16]string, n uint16, who string) error {
	if n == 0 {
		return nil
	}
	if other, twice := taken[n]; twice {
		return fmt.Errorf("%d is in use in %q", n, other)
	}
	taken[n] = who
	return nil
}
