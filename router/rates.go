// SPDX-License-Identifier: Apache-2.0

package router

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"sluice/routing"
)

// Theory of operation.
//
// Linux limits ICMP errors twice. All of a namespace together have credit, refilled
// at icmp_msgs_per_sec up to icmp_msgs_burst; what an error costs is random, 1 on
// average, so that nobody learns from it what others sent (icmp_global_allow,
// icmp_global_consume). And each address gets one in icmp_ratelimit, or six after a
// pause (inet_peer_xrlim_allow); what no route leads to costs once more
// (ip_error), and redirects have a rate of their own that doubles its interval
// each time (ip_rt_send_redirect), out of the same account.
//
// Here the ports of containers have credit too, so that one that asks for errors
// has used up its own before it has used up the namespace's. All accounts are
// bounded; a table that is full forgets the account that has rested longest of a
// few, which are drawn.

// ICMPLimits are the sysctls of ICMP. Zero is Linux' default of each.
type ICMPLimits struct {
	Off         bool // no limits at all
	RateMillis  int  // ipv4.icmp_ratelimit, 1000: between two errors to one address; below 0: none
	RateMillis6 int  // ipv6.icmp.ratelimit, 100 (as of Linux 6.18)
	PerSecond   int  // icmp_msgs_per_sec, 1000, of both families
	Burst       int  // icmp_msgs_burst, 50
}

func (l ICMPLimits) complete() ICMPLimits {
	if l.RateMillis == 0 {
		l.RateMillis = 1000
	}
	if l.RateMillis6 == 0 {
		l.RateMillis6 = 100
	}
	l.PerSecond, l.Burst = positive(l.PerSecond, 1000), positive(l.Burst, 50)
	return l
}

// The constants of the kernel that no sysctl changes by default.
const (
	peerBurst      = 6                  // XRLIM_BURST_FACTOR
	errorCost      = int64(time.Second) // ip_rt_error_cost
	errorBurst     = 5 * int64(time.Second)
	redirectLoad   = int64(time.Second) / 50 // ip_rt_redirect_load
	redirectNumber = 9                       // ip_rt_redirect_number
	redirectSilent = redirectLoad << (redirectNumber + 1)
	refillStep     = int64(time.Second) / 50 // credit is not counted in smaller steps
	portBurst      = 50                      // errors that a port has credit for after a pause
	drawn          = 8                       // accounts among which one is chosen to be forgotten
)

// rates are the accounts of one namespace.
type rates struct {
	mu       sync.Mutex
	maxPeers int
	perPort  int

	// The fields below are guarded by mu.

	global bucket
	ports  map[uint32]*bucket
	peers  map[peerKey]*peer
}

// bucket is credit that grows with time. Zero is full.
type bucket struct {
	spent int // less than full
	stamp int64
}

// peerKey is an address in a VRF.
type peerKey struct {
	addr netip.Addr
	vrf  routing.TableID
}

// peer is struct inet_peer, in nanoseconds.
type peer struct {
	tokens    int64
	last      int64
	redirects uint
}

func (r *rates) init(peers, perPort int) {
	r.maxPeers, r.perPort = peers, perPort
	r.ports, r.peers = map[uint32]*bucket{}, map[peerKey]*peer{}
}

// refill adds what came since.
func (b *bucket) refill(now int64, perSecond int) {
	elapsed := min(now-b.stamp, int64(time.Second))
	if elapsed < refillStep {
		return
	}
	if n := int(int64(perSecond) * elapsed / int64(time.Second)); n > 0 {
		b.spent, b.stamp = max(0, b.spent-n), now
	}
}

// has reports whether there is credit.
func (b *bucket) has(now int64, perSecond, burst int) bool {
	if b.stamp == 0 {
		b.stamp = now
	}
	if b.spent < burst {
		return true
	}
	b.refill(now, perSecond)
	return b.spent < burst
}

// portKey is the account of an ingress port, or of a link, which has none.
func portKey(w *passage) uint32 {
	if w.Port != 0 {
		return uint32(w.Port)
	}
	return uint32(w.Device) << 16
}

func (r *rates) port(key uint32) *bucket {
	b := r.ports[key]
	if b == nil {
		b = &bucket{}
		r.ports[key] = b
	}
	return b
}

// mayReport reports whether the namespace and the port have credit for an error.
func (r *rates) mayReport(w *passage) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &w.st.icmp
	return r.port(portKey(w)).has(w.Nanos, r.perPort, portBurst) && r.global.has(w.Nanos, l.PerSecond, l.Burst)
}

// mayReportTo reports whether the sender may get an error, and pays for it.
func (r *rates) mayReportTo(w *passage) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	millis := w.st.icmp.RateMillis
	if w.v6 {
		millis = w.st.icmp.RateMillis6
	}
	rate := int64(millis) * int64(time.Millisecond)
	if rate > 0 && !r.peer(w, w.src).allow(w.Nanos, rate) {
		return false
	}
	r.global.spent += int(rand.Uint32N(3))
	r.port(portKey(w)).spent++
	return true
}

// mayRefuse is the part of the rate that ip_error takes for itself.
func (r *rates) mayRefuse(w *passage) bool {
	if w.st.icmp.Off {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peer(w, w.src)
	p.tokens = min(p.tokens+w.Nanos-p.last, errorBurst)
	p.last = w.Nanos
	if p.tokens < errorCost {
		return false
	}
	p.tokens -= errorCost
	return true
}

// mayRedirect is the rate of ip_rt_send_redirect.
func (r *rates) mayRedirect(w *passage) bool {
	if w.st.icmp.Off {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peer(w, w.src)
	if w.Nanos > p.last+redirectSilent {
		p.tokens, p.redirects = 0, 0
	}
	if p.redirects >= redirectNumber { // it doesn't listen
		p.last = w.Nanos
		return false
	}
	if p.redirects > 0 && w.Nanos <= p.last+redirectLoad<<p.redirects {
		return false
	}
	p.last = w.Nanos
	p.redirects++
	return true
}

// mayRedirect6 is the rate of ip6_forward by destination, and of
// ndisc_send_redirect by source.
func (r *rates) mayRedirect6(w *passage) bool {
	if w.st.icmp.Off {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peer(w, w.dst).allow(w.Nanos, int64(time.Second)) && r.peer(w, w.src).allow(w.Nanos, int64(time.Second))
}

// allow is inet_peer_xrlim_allow.
func (p *peer) allow(now, rate int64) bool {
	p.tokens = min(p.tokens+now-p.last, peerBurst*rate)
	p.last = now
	if p.tokens < rate {
		return false
	}
	p.tokens -= rate
	return true
}

// peer is the account of an address, which begins well rested.
func (r *rates) peer(w *passage, a netip.Addr) *peer {
	key := peerKey{addr: a}
	if d := w.st.byIndex[w.Device]; d != nil {
		key.vrf = d.VRF
	}
	p := r.peers[key]
	if p == nil {
		if len(r.peers) >= r.maxPeers {
			r.forget()
		}
		p = &peer{last: w.Nanos - 60*int64(time.Second)}
		r.peers[key] = p
	}
	return p
}

// forget makes room for another account.
func (r *rates) forget() {
	var oldest peerKey
	n, last := 0, int64(0)
	for key, p := range r.peers { // which begins anywhere
		if n == 0 || p.last < last {
			oldest, last = key, p.last
		}
		if n++; n == drawn {
			break
		}
	}
	delete(r.peers, oldest)
}

func (r *rates) removePort(port uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ports, uint32(port))
}
