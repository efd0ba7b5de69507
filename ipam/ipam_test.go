// SPDX-License-Identifier: Apache-2.0

package ipam_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/ipam"
)

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func pool(subnet, gateway string) ipam.Pool {
	return ipam.Pool{Subnet: netip.MustParsePrefix(subnet), Gateway: addr(gateway)}
}

// held makes the view "these are held by red".
func held(addrs ...string) ipam.Used {
	return func(a netip.Addr) string {
		if slices.Contains(addrs, a.String()) {
			return "red"
		}
		return ""
	}
}

func TestNext(t *testing.T) {
	v4, v6 := pool("10.44.0.0/29", "10.44.0.1"), pool("fd44::/64", "fd44::1")
	tests := map[string]struct {
		pool       ipam.Pool
		last, want string
		used       ipam.Used
	}{
		"first of IPv4, past the gateway":     {v4, "", "10.44.0.2", held()},
		"first of IPv6, past the gateway":     {v6, "", "fd44::2", held()},
		"above the last one":                  {v4, "10.44.0.3", "10.44.0.4", held()},
		"a released one comes last":           {v4, "10.44.0.2", "10.44.0.3", held()},
		"past one in use":                     {v4, "10.44.0.2", "10.44.0.4", held("10.44.0.3")},
		"round the end, not the broadcast":    {v4, "10.44.0.6", "10.44.0.2", held()},
		"last one outside after a new subnet": {v4, "10.99.0.6", "10.44.0.2", held()},
		"last one of the other family":        {v4, "fd44::7", "10.44.0.2", held()},
		"the last one itself is free, alone":  {v4, "10.44.0.4", "10.44.0.4", held("10.44.0.2", "10.44.0.3", "10.44.0.5", "10.44.0.6")},
		"end of a /64":                        {v6, "fd44::ffff:ffff:ffff:ffff", "fd44::2", held()},
		"end of the address space":            {pool("ffff:ffff:ffff:ffff::/64", ""), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff::1", held()},
		"gateway in the middle":               {pool("10.44.0.0/29", "10.44.0.3"), "10.44.0.2", "10.44.0.4", held()},
		"smallest IPv4":                       {pool("10.44.0.0/30", "10.44.0.1"), "", "10.44.0.2", held()},
		"smallest IPv6":                       {pool("fd44::/126", "fd44::1"), "fd44::2", "fd44::3", held()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := tt.pool.Next(addr(tt.last), tt.used)
			if err != nil || got != addr(tt.want) {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestExhausted(t *testing.T) {
	_, err := pool("10.44.0.0/30", "10.44.0.1").Next(addr("10.44.0.2"), held("10.44.0.2"))
	if !errors.Is(err, ipam.ErrExhausted) || err.Error() != "no address is free in 10.44.0.0/30" {
		t.Errorf("got %v", err)
	}
}

func TestCheck(t *testing.T) {
	v4, v6 := pool("10.44.0.0/24", "10.44.0.1"), pool("fd44::/64", "fd44::1")
	tests := map[string]struct {
		pool ipam.Pool
		addr string
		kind error
		want string
	}{
		"free":             {v4, "10.44.0.200", nil, ""},
		"free IPv6":        {v6, "fd44::abcd:1", nil, ""},
		"outside":          {v4, "10.45.0.2", ipam.ErrOutside, "10.45.0.2 is outside the subnet 10.44.0.0/24"},
		"other family":     {v4, "fd44::2", ipam.ErrOutside, "fd44::2 is outside the subnet 10.44.0.0/24"},
		"with a zone":      {v6, "fd44::2%eth0", ipam.ErrOutside, "fd44::2%eth0 is outside the subnet fd44::/64"},
		"IPv4-mapped":      {v4, "::ffff:10.44.0.2", ipam.ErrOutside, "::ffff:10.44.0.2 is outside the subnet 10.44.0.0/24"},
		"gateway":          {v4, "10.44.0.1", ipam.ErrGateway, "10.44.0.1 is the gateway of 10.44.0.0/24"},
		"network":          {v4, "10.44.0.0", ipam.ErrReserved, "10.44.0.0 is the network address of 10.44.0.0/24"},
		"broadcast":        {v4, "10.44.0.255", ipam.ErrReserved, "10.44.0.255 is the broadcast address of 10.44.0.0/24"},
		"anycast":          {v6, "fd44::", ipam.ErrReserved, "fd44:: is the subnet-router anycast address of fd44::/64"},
		"no v6 broadcast":  {v6, "fd44::ffff:ffff:ffff:ffff", nil, ""},
		"in use":           {v4, "10.44.0.9", ipam.ErrInUse, "10.44.0.9 is in use by red"},
		"end of the space": {pool("255.255.255.0/24", ""), "255.255.255.255", ipam.ErrReserved, "255.255.255.255 is the broadcast address of 255.255.255.0/24"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.pool.Check(addr(tt.addr), held("10.44.0.9"))
			if !errors.Is(err, tt.kind) || (err != nil && err.Error() != tt.want) {
				t.Errorf("got %v, want %v: %q", err, tt.kind, tt.want)
			}
		})
	}
}

// slowNext is the obvious twin of Next: list what may be given out, drop what
// is used, take the first above last, else the first.
func slowNext(p ipam.Pool, last netip.Addr, used map[netip.Addr]bool) netip.Addr {
	var free []netip.Addr
	for a := p.Subnet.Addr(); p.Subnet.Contains(a); a = a.Next() {
		edge := a == p.Subnet.Addr() || (a.Is4() && !p.Subnet.Contains(a.Next()))
		if !edge && a != p.Gateway && !used[a] {
			free = append(free, a)
		}
	}
	for _, a := range free {
		if p.Subnet.Contains(last) && a.Compare(last) > 0 {
			return a
		}
	}
	if len(free) > 0 {
		return free[0]
	}
	return netip.Addr{}
}

// TestOracle allocates and releases at random in small subnets, beside the twin.
func TestOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pools := []ipam.Pool{
		pool("10.0.0.0/30", "10.0.0.1"), pool("10.0.0.0/28", "10.0.0.9"), pool("255.255.255.240/28", ""),
		pool("fd00::/126", "fd00::1"), pool("fd00::/124", "fd00::f"), pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124", ""),
	}
	for range 2000 {
		p := pools[rnd.IntN(len(pools))]
		used := map[netip.Addr]bool{}
		view := func(a netip.Addr) string {
			if used[a] {
				return "somebody"
			}
			return ""
		}
		var last netip.Addr
		for range 40 {
			got, err := p.Next(last, view)
			if want := slowNext(p, last, used); got != want || (err == nil) != want.IsValid() {
				t.Fatalf("%v after %v with %v: got %v, %v; want %v", p, last, used, got, err, want)
			}
			if err == nil {
				if err := p.Check(got, view); err != nil {
					t.Fatalf("Next gave %s, but Check says %v", got, err)
				}
				used[got], last = true, got
			}
			for a := range used { // map order is the random choice of what to release
				if rnd.IntN(3) == 0 {
					delete(used, a)
				}
				break
			}
		}
	}
}

// TestLargeSubnetIsNotScanned counts the questions asked.
func TestLargeSubnetIsNotScanned(t *testing.T) {
	p := pool("fd44::/64", "fd44::1")
	used := map[netip.Addr]bool{}
	asked := 0
	view := func(a netip.Addr) string {
		if asked++; used[a] {
			return "x"
		}
		return ""
	}
	for range 1000 {
		a, err := p.Next(netip.Addr{}, view)
		if err != nil {
			t.Fatal(err)
		}
		used[a] = true
	}
	if asked > 1000*1001/2 {
		t.Errorf("%d questions for 1000 leases from the start each time", asked)
	}
}

func TestMACIsStableLocalUnicast(t *testing.T) {
	free := func([6]byte) bool { return false }
	seen := map[[6]byte]string{}
	for _, c := range [][2]string{{"blue", "1"}, {"blue", "2"}, {"red", "1"}, {"blu", "e1"}, {"", ""}} {
		m, err := ipam.MAC(c[0], c[1], free)
		if err != nil || m[0]&3 != 2 {
			t.Errorf("%v: %x, %v is not a locally administered unicast address", c, m, err)
		}
		if again, _ := ipam.MAC(c[0], c[1], free); again != m {
			t.Errorf("%v: %x, then %x", c, m, again)
		}
		if who, dup := seen[m]; dup {
			t.Errorf("%v has the address of %s", c, who)
		}
		seen[m] = c[0] + "/" + c[1]
	}
}

func TestMACStepsAsideOnCollision(t *testing.T) {
	first, _ := ipam.MAC("blue", "1", func([6]byte) bool { return false })
	second, err := ipam.MAC("blue", "1", func(m [6]byte) bool { return m == first })
	if err != nil || second == first || second[0]&3 != 2 {
		t.Errorf("got %x, %v after %x was taken", second, err, first)
	}
	if _, err := ipam.MAC("blue", "1", func([6]byte) bool { return true }); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("all taken: got %v", err)
	}
}
